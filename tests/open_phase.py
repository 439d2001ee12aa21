"""An experiment whose phase is open, for tests: its catalogue, its deployment, and rows on demand.

Loaded by path (`runpy.run_path`): tests are no package.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from serving.deployment import Arm, Deployment
from serving.experiments.catalogue import Catalogue, Entry, Served
from serving.experiments.database import open_database
from serving.experiments.guardrails import GuardrailWatch
from serving.experiments.lifecycle import Event
from serving.experiments.specification import specification_of
from serving.experiments.store import ExperimentStore, Exposure, Feedback


def unreal(name: str) -> Arm:
    """An arm that nothing answers for."""
    return Arm(
        name=name,
        model_name="matjip-sentiment",
        version=name,
        folder=Path(name),
        manifest_digest=name.encode().hex().zfill(64),
        evidence_id=f"evidence-{name}",
        share=1.0,
    )


class OpenPhase:
    """An experiment with its phase of a kind open, its deployment at work, and rows on demand."""

    def __init__(
        self,
        store: ExperimentStore,
        catalogue: Catalogue,
        values: Any,
        kind: str,
        models: Mapping[str, Arm] | None = None,
    ):
        """Agree on the experiment, and open its phases up to the first one of that kind.

        Args:
            store: of its rows.
            catalogue: of the same store.
            values: of its specification.
            kind: of the phase.
            models: by arm; without them, folders that are not there.
        """
        self.store, self.catalogue = store, catalogue
        self.random, self.now_us, self.asked = np.random.default_rng(5), 1_000_000_000, 0
        entry = catalogue.put(specification_of(values, where="experiment"))
        said = self.specification = entry.lifecycle.specification
        for number, phase in enumerate(said.phases, start=1):
            arms = [
                (models or {}).get(name, unreal(name)).model_copy(update={"share": share})
                for name, share in said.shares(phase).items()
            ]
            self.deployment = Deployment(
                experiment_id=said.name,
                salt="소금이 든 국물",
                arms=arms,
                created_at=datetime(2026, 11, 30, tzinfo=UTC),
                phase=said.plan(phase, version=1, number=number),
            )
            served = self.deployment
            self.act(
                "start" if number == 1 else "advance",
                serves=Served("sentiment", served.deployment_id, served.model_dump(mode="json")),
            )
            if phase.kind == kind:
                break

    def act(self, action: Any, *, by: str = "사람", serves: Served | None = None) -> Entry:
        event = Event(action=action, by=by, reason="살펴보았다")
        return self.catalogue.record(self.specification.name, event, serves=serves)

    @property
    def entry(self) -> Entry:
        return self.catalogue.get(self.specification.name)

    def watch(self, url: str | None = None) -> GuardrailWatch:
        """Of this phase; the address of its store is needed where that has a password."""
        engine = open_database(url or self.store.name)
        return GuardrailWatch(
            engine, self.deployment, self.specification, clock=lambda: self.now_us
        )

    def row(self, unit: int, arm: str, **changes: Any) -> Exposure:
        """One ask of an arm, a millisecond after the one before."""
        self.asked += 1
        self.now_us += 1_000
        given = {
            "request_id": f"request-{self.asked}",
            "item": 0,
            "experiment_id": self.specification.name,
            "deployment_id": self.deployment.deployment_id,
            "unit": f"{unit:064x}",
            "arm": arm,
            "model_version": f"matjip-sentiment/{arm}",
            "text_sha256": "0" * 64,
            "prediction": b'{"sentiment": {"label": "positive"}}',
            "latency_ms": float(self.random.lognormal(3.0, 0.3)),
            "created_at_us": self.now_us,
        }
        return Exposure(**(given | changes))

    def answer(self, units: int, changed: Callable[[str], dict[str, Any]] = lambda _: {}) -> None:
        """New units come, each once, dealt by the shares; ``changed`` is what is odd of an arm."""
        names = [arm.name for arm in self.deployment.arms]
        dealt = self.random.choice(names, units, p=[arm.share for arm in self.deployment.arms])
        rows = [self.row(self.asked, arm, **changed(arm)) for arm in dealt.tolist()]
        self.store.write(rows)

    def tell(self, request: int, value: float, **changes: Any) -> None:
        """The outcome of a request's answer."""
        self.now_us += 1_000
        given = {"request_id": f"request-{request}", "item": 0, "created_at_us": self.now_us}
        (result,) = self.store.write([], [Feedback(**(given | {"reward": value} | changes))])
        assert result == "stored"
