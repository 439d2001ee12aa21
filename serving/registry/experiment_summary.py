"""Where an experiment stands, as people and programs read it: from the catalogue and the store."""

from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel, ConfigDict

from data.errors import ExperimentError
from serving.experiments.allocation import Allocation, ArmShare, allocate
from serving.experiments.catalogue import Catalogue, Entry
from serving.experiments.counts import ArmCounter, ArmCounts
from serving.experiments.lifecycle import Action, Event, State
from serving.experiments.routes import Routes
from serving.registry.phases import served_by

_US: Final = 1e6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class ArmSummary(_Frozen):
    """An arm: what it was agreed to be, what it is, and what it has met in the open phase."""

    name: str
    model: str
    serves: str | None
    share: float | None
    units: int
    answers: int
    failed: int


class PhaseSummary(_Frozen):
    """A phase that was opened; ``number`` counts them from 1."""

    number: int
    kind: str
    shares: dict[str, float]
    deployment_id: str | None


class EventSummary(_Frozen):
    """One thing that was done."""

    number: int
    at: datetime
    action: Action
    by: str
    reason: str
    arm: str | None


class ExperimentSummary(_Frozen):
    """All that a person asks of an experiment; ``answers_everybody`` is a route's arm."""

    name: str
    state: State
    version: int
    digest: str
    hypothesis: str
    owner: str
    unit: str
    agreed_at: datetime
    planned: list[str]
    phases: list[PhaseSummary]
    arms: list[ArmSummary]
    answers_everybody: str | None
    promoted: str | None
    history: list[EventSummary]
    may: list[Action]

    @property
    def phase(self) -> str:
        """Which one is open: ``2 canary``; a draft has none."""
        return f"{self.phases[-1].number} {self.phases[-1].kind}" if self.phases else "-"


def allocation_now(entry: Entry) -> Allocation:
    """How the open phase of an experiment deals out units; the first one's of a draft.

    Raises:
        ExperimentError: that is no allocation.
    """
    here = entry.lifecycle
    if here.current is None:
        here = here.after(Event(action="start", by="a look ahead", reason="nothing is recorded"))
    shares = here.specification.shares(here.opened[-1].phase)
    arms = [ArmShare(arm, share) for arm, share in shares.items()]
    return allocate(here.specification.name, arms, here.plan(entry.version))


class Experiments:
    """The experiments of one store, with what the store says of their phases."""

    def __init__(self, url: str):
        """Open the store.

        Raises:
            ExperimentError: the database cannot be opened.
        """
        self.catalogue = Catalogue(url)
        self.routes = Routes(url)
        self._counter = ArmCounter(url)

    def close(self) -> None:
        """Let go of every connection."""
        for part in (self.catalogue, self.routes, self._counter):
            part.close()

    def summary(self, name: str) -> ExperimentSummary:
        """An experiment by its name.

        Raises:
            ExperimentError: there is none of that name, or the store cannot be read.
        """
        return self._summary(self.catalogue.get(name))

    def all(self) -> list[ExperimentSummary]:
        """Every experiment, by name.

        Raises:
            ExperimentError: the store cannot be read.
        """
        return [self._summary(entry) for entry in self.catalogue.list()]

    def _summary(self, entry: Entry) -> ExperimentSummary:
        here, specification = entry.lifecycle, entry.lifecycle.specification
        phases = [
            PhaseSummary(
                number=number,
                kind=opened.phase.kind,
                shares=specification.shares(opened.phase),
                deployment_id=opened.deployment_id,
            )
            for number, opened in enumerate(here.opened, start=1)
        ]
        serving = phases[-1].deployment_id if phases else None
        route = self.routes.now(serving) if serving else None
        return ExperimentSummary(
            name=specification.name,
            state=here.state,
            version=entry.version,
            digest=specification.digest,
            hypothesis=specification.hypothesis,
            owner=specification.owner,
            unit=specification.unit,
            agreed_at=_moment(entry.created_at_us),
            planned=[phase.kind for phase in specification.phases],
            phases=phases,
            arms=self._arms(entry, phases[-1] if phases else None),
            answers_everybody=route.arm if route else None,
            promoted=here.promoted,
            history=[
                EventSummary(
                    number=each.number,
                    at=_moment(each.at_us),
                    **each.event.model_dump(include={"action", "by", "reason", "arm"}),
                )
                for each in entry.history
            ],
            may=list(here.may),
        )

    def _arms(self, entry: Entry, phase: PhaseSummary | None) -> list[ArmSummary]:
        content = served_by(self.catalogue, entry)
        serves = {
            arm["name"]: f"{arm['model_name']}/{arm['version']}"
            for arm in (content["arms"] if content else ())
        }
        serving = phase.deployment_id if phase else None
        counts = self._counter.of(serving) if serving else {}
        summaries = []
        for arm in entry.lifecycle.specification.arms:
            met = counts.get(arm.name, ArmCounts())
            summaries.append(
                ArmSummary(
                    name=arm.name,
                    model=arm.model,
                    serves=serves.get(arm.name),
                    share=phase.shares[arm.name] if phase else None,
                    units=met.units,
                    answers=met.answers,
                    failed=met.failed,
                )
            )
        return summaries


def _moment(at_us: int) -> datetime:
    try:
        return datetime.fromtimestamp(at_us / _US, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise ExperimentError(
            f"a time in the store is {at_us!r} microseconds since 1970, which is no date; restore "
            "the database"
        ) from error
