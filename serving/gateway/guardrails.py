"""The guardrails of whatever this gateway serves, looked at every second: a breach rolls back.

A look reads what is new in the store, and writes what follows to the catalogue, which turns the
route in the same transaction; this gateway follows at once, the others with their next look at the
routes. Of several gateways that see the same breach the first one is heard. Nothing is ever
promoted here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from serving.deployment import SharedArm
from serving.experiments.assignment import Deployed
from serving.experiments.catalogue import Catalogue, Entry
from serving.experiments.database import open_database
from serving.experiments.guarding import act_on
from serving.experiments.guardrail_readings import PhaseLook
from serving.experiments.guardrails import GuardrailWatch
from serving.experiments.lifecycle import ENDED
from serving.gateway.guardrail_metrics import GuardrailMetrics


@dataclass(frozen=True)
class Guarded:
    """A deployment that answers now.

    Attributes:
        deployment: of any kind of model.
        force: sends everybody of a deployment, by its id, to an arm; from any thread.
    """

    deployment: Deployed[Any]
    force: Callable[[str, str], None]


class Guardrails:
    """Looks at the phases that are served. One turn at a time, in a thread."""

    def __init__(
        self, url: str, *, served: Callable[[], Sequence[Guarded]], metrics: GuardrailMetrics
    ):
        """Hold the parts; the store is opened when it is first looked at.

        Args:
            url: of the store.
            served: the deployments that answer now.
            metrics: that are told.
        """
        self._url = url
        self._served = served
        self._metrics = metrics
        self._engine: sa.Engine | None = None
        self._catalogue: Catalogue | None = None
        self._watches: dict[str, GuardrailWatch] = {}

    def turn(self) -> bool:
        """Look at every phase that is served; True where there is more to read.

        Raises:
            ExperimentError: the store cannot be read or written, or a deployment is of an
                experiment that is not in its catalogue. The others were looked at.
        """
        served = [one for one in self._served() if one.deployment.phase is not None]
        ids = {one.deployment.deployment_id for one in served}
        self._watches = {key: watch for key, watch in self._watches.items() if key in ids}
        self._metrics.keep({one.deployment.experiment_id for one in served})
        behind, failure = False, None
        for one in served:
            try:
                behind |= self._look(one)
            except Exception as error:  # noqa: BLE001  # one experiment must not unguard another
                failure = error
        if failure is not None:
            raise failure
        return behind

    def close(self) -> None:
        """Let go of the store."""
        if self._catalogue is not None:
            self._catalogue.close()
        if self._engine is not None:
            self._engine.dispose()

    def _look(self, one: Guarded) -> bool:
        deployment = one.deployment
        catalogue, engine = self._opened()
        entry = catalogue.get(deployment.experiment_id)
        here = entry.lifecycle
        self._metrics.show_state(deployment.experiment_id, here.state)
        serving = here.current and here.current.deployment_id
        if here.state in ENDED or serving != deployment.deployment_id:
            self._watches.pop(deployment.deployment_id, None)
            return False
        watch = self._watch(engine, deployment, entry)
        look = watch.look()
        self._metrics.show(look)
        after = act_on(catalogue, look, entry)
        if after is not None:
            self._acted(one, look, after)
        return look.behind

    def _opened(self) -> tuple[Catalogue, sa.Engine]:
        if self._catalogue is None:
            self._catalogue = Catalogue(self._url)
        if self._engine is None:
            self._engine = open_database(self._url)
        return self._catalogue, self._engine

    def _watch(
        self, engine: sa.Engine, deployment: Deployed[SharedArm], entry: Entry
    ) -> GuardrailWatch:
        key = deployment.deployment_id
        if key not in self._watches:
            self._watches[key] = GuardrailWatch(engine, deployment, entry.lifecycle.specification)
        return self._watches[key]

    def _acted(self, one: Guarded, look: PhaseLook, after: Entry) -> None:
        event = after.history[-1].event
        one.force(look.deployment_id, after.lifecycle.specification.control.name)
        self._metrics.show_state(look.experiment, after.lifecycle.state)
        breached = look.breached("guardrail" if event.action == "roll_back" else "signal")
        for reading in breached:
            self._metrics.count_breach(look.experiment, reading)
