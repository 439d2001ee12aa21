"""The experiments of the gateway's store, as the API and the web page see and change them.

Everything here is done in threads of its own, one for each kind of work, so that neither answers
to reviews nor a roll-back ever wait for a report:

    reads     lists, histories, routes, counts of answers
    writes    what is agreed and done
    slow      reports, the registry, models that are fetched for a phase
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, Literal, ParamSpec, TypeVar

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.catalogue import Catalogue, Entry, UnknownExperimentError
from serving.experiments.counts import ArmCounter, ArmCounts
from serving.experiments.lifecycle import ENDED, Event, Lifecycle
from serving.experiments.routes import Routes
from serving.experiments.specification import ExperimentSpecification
from serving.gateway.experiment_schemas import (
    ActedOut,
    AgreedOut,
    ExperimentArmOut,
    ExperimentOut,
    ModelVersionOut,
    OneExperimentOut,
    RouteOut,
    acted_out,
    history_out,
    phases_out,
    route_out,
    time_of,
)
from serving.gateway.kept import LEAST_S, Kept
from serving.gateway.limits import Admission, Refusal

Kind = Literal["reads", "writes", "slow"]
KINDS: Final[tuple[Kind, ...]] = ("reads", "writes", "slow")
_MOST_WAITING: Final = 32
_MOST_ROUTES: Final = 1_000
_ENDED_S: Final = 600.0
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
Given = ParamSpec("Given")
Value = TypeVar("Value")


class Experiments:
    """Reads and changes the experiments of one store; opened when it is first asked."""

    def __init__(self, store_url: str, *, writable: bool = False, opens_phases: bool = False):
        """Open nothing yet.

        Args:
            store_url: where the experiments are.
            writable: whether the API may change them, which it tells whoever reads.
            opens_phases: whether phases that it opens would be served by this gateway.
        """
        self._url = store_url
        self._writable = writable
        self._opens_phases = opens_phases
        self._lock = threading.Lock()
        self._opened: tuple[Catalogue, Routes, ArmCounter] | None = None
        self._counts: Kept[dict[str, ArmCounts]] = Kept()
        self._pools: dict[Kind, ThreadPoolExecutor] = {}
        self._doors = {kind: Admission(_MOST_WAITING) for kind in KINDS}

    @property
    def store_url(self) -> str:
        """Where the experiments are."""
        return self._url

    @property
    def catalogue(self) -> Catalogue:
        """What was agreed and done.

        Raises:
            ExperimentError: the store cannot be opened.
        """
        return self._stores()[0]

    async def apart(
        self, kind: Kind, work: Callable[Given, Value], *args: Given.args, **named: Given.kwargs
    ) -> Value:
        """Do work in the thread of its kind.

        Raises:
            Refusal: 429 too much waits there, 503 the store is away; what ``work`` raises.
        """
        if kind not in self._pools:
            self._pools[kind] = ThreadPoolExecutor(1, thread_name_prefix=f"experiments-{kind}")

        def told() -> Value:
            with store_reported():
                return work(*args, **named)

        with self._doors[kind].enter():
            return await asyncio.get_running_loop().run_in_executor(self._pools[kind], told)

    def all(self) -> list[ExperimentOut]:
        """All experiments, by name.

        Raises:
            ExperimentError: the store cannot be read.
        """
        return [ExperimentOut(**self._facts(entry)) for entry in self.catalogue.list()]

    def one(self, name: str) -> OneExperimentOut:
        """All of one experiment.

        Raises:
            Refusal: 404, there is none of that name.
            ExperimentError: the store cannot be read.
        """
        return self._whole(self.entry(name))

    def entry(self, name: str) -> Entry:
        """An experiment of the catalogue.

        Raises:
            Refusal: 404, there is none of that name.
            ExperimentError: the store cannot be read.
        """
        if not _NAME.fullmatch(name):  # a database is not asked for what cannot be a name
            raise _unknown(name)
        try:
            return self.catalogue.get(name)
        except UnknownExperimentError as error:
            raise _unknown(name) from error

    def put(self, specification: ExperimentSpecification) -> AgreedOut:
        """Keep what was agreed.

        Raises:
            Refusal: 409, the experiment has begun with another specification.
            ExperimentError: the store refused.
        """
        with _conflicts("already_begun"):
            entry = self.catalogue.put(specification)
        return AgreedOut(
            name=specification.name, version=entry.version, digest=specification.digest
        )

    def act(self, name: str, event: Event, after: int) -> ActedOut:
        """Write an event down; whatever it says of routes holds from that moment.

        Raises:
            Refusal: 404 there is no such experiment, 409 the event is not allowed now, or somebody
                acted since ``after`` events, 422 it names what the experiment has not.
            ExperimentError: the store refused.
        """
        self.refuse_unless_current(name, after)
        with _conflicts("not_allowed_now"):
            return acted_out(self.catalogue.record(name, event, after=after))

    def refuse_unless_current(self, name: str, after: int) -> None:
        """See that nobody acted since ``after`` events.

        Raises:
            Refusal: 404 there is no such experiment, 409 somebody did.
        """
        seen = self.entry(name).lifecycle.events
        if seen != after:
            raise Refusal(
                409,
                "acted_meanwhile",
                f"experiment {name!r} had {after!r} events when this was decided and has {seen!r} "
                "now: somebody acted meanwhile; look again, then decide",
                field="after",
            )

    def routes(self, name: str | None) -> list[RouteOut]:
        """Routes of one experiment's phases, or of all deployments; the newest first.

        Raises:
            Refusal: 404, there is no such experiment.
            ExperimentError: the store cannot be read.
        """
        found = self._stores()[1].all(limit=_MOST_ROUTES)
        if name is not None:
            phases = {phase.deployment_id for phase in self.entry(name).lifecycle.opened}
            found = [route for route in found if route.deployment_id in phases]
        return [route_out(route) for route in found]

    def close(self) -> None:
        """Let work end, and close the store."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
        with self._lock:
            if self._opened is not None:
                for each in self._opened:
                    each.close()
                self._opened = None

    def _stores(self) -> tuple[Catalogue, Routes, ArmCounter]:
        with self._lock:
            if self._opened is None:
                self._opened = (
                    Catalogue(self._url),
                    Routes(self._url),
                    ArmCounter(self._url),
                )
            return self._opened

    def _whole(self, entry: Entry) -> OneExperimentOut:
        here = entry.lifecycle
        return OneExperimentOut(
            **self._facts(entry),
            specification=here.specification.model_dump(mode="json"),
            phases=phases_out(entry),
            history=[history_out(each) for each in entry.history],
            may=list(here.may),
            promoted=here.promoted,
            writable=self._writable,
            opens_phases=self._opens_phases,
        )

    def _facts(self, entry: Entry) -> dict[str, Any]:
        here = entry.lifecycle
        agreed = here.specification
        phases = phases_out(entry)
        serving = phases[-1].deployment_id if phases else None
        route = self._stores()[1].now(serving) if serving else None
        return {
            "name": agreed.name,
            "state": here.state,
            "hypothesis": agreed.hypothesis,
            "owner": agreed.owner,
            "unit": agreed.unit,
            "version": entry.version,
            "events": here.events,
            "agreed_at": time_of(entry.created_at_us),
            "phase": phases[-1] if phases else None,
            "arms": self._arms(here, phases[-1].shares if phases else {}, serving),
            "answered_by": route.arm if route else None,
            "last_event": history_out(entry.history[-1]) if entry.history else None,
        }

    def _arms(
        self, here: Lifecycle, shares: dict[str, float], serving: str | None
    ) -> list[ExperimentArmOut]:
        agreed, ended = here.specification, here.state in ENDED
        _, routes, counter = self._stores()
        counts: dict[str, ArmCounts] = {}
        resolved: dict[str, ModelVersionOut] = {}
        if serving is not None:
            # Nobody is dealt any more when it has ended, so those are counted once in a while.
            least_s = _ENDED_S if ended else LEAST_S
            counts = self._counts.get(serving, lambda: counter.of(serving), least_s=least_s)
            served = routes.get(serving)
            for arm in served.content.get("arms", ()) if served else ():
                resolved[arm["name"]] = ModelVersionOut(
                    name=arm["model_name"], version=arm["version"]
                )
        return [
            ExperimentArmOut(
                name=arm.name,
                model=arm.model,
                control=arm is agreed.control,
                resolved=resolved.get(arm.name),
                share=shares.get(arm.name),
                **vars(counts.get(arm.name, ArmCounts())),
            )
            for arm in agreed.arms
        ]


def _unknown(name: str) -> Refusal:
    return Refusal(
        404,
        "unknown_experiment",
        f"there is no experiment {name[:80]!r}; GET /v1/experiments lists those there are",
        field="name",
    )


@contextmanager
def store_reported() -> Iterator[None]:
    """A store that is away as a 503."""
    try:
        yield
    except ExperimentError as error:
        raise Refusal(503, "store_failed", str(error), retry_after_s=5) from error


@contextmanager
def _conflicts(code: str) -> Iterator[None]:
    """What the catalogue does not allow as a 409; what the database refused stays an error."""
    try:
        yield
    except ExperimentError as error:
        if isinstance(error.__cause__, sa.exc.SQLAlchemyError):
            raise
        if isinstance(error.__cause__, ValueError):
            raise Refusal(422, "invalid_event", str(error), field="allocation") from error
        raise Refusal(409, code, str(error)) from error
