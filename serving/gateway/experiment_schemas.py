"""What the API of experiments takes and gives."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from serving.dealing import Name, PhaseKind, Share
from serving.experiments.catalogue import Entry, Recorded
from serving.experiments.lifecycle import OPENING, Action, Event, OpenedPhase, State
from serving.experiments.routes import Route
from serving.experiments.specification import ShadowPhase

_US: Final = 1_000_000


class EventIn(BaseModel):
    """What shall be done to an experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    action: Action
    reason: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)
    ] = Field(description="Why; it stays in the history.")
    by: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = (
        Field(
            default="api",
            description="Who says so; the token is everybody's, so it is taken on trust.",
        )
    )
    arm: Name | None = Field(default=None, description="Which arm wins; with promote alone.")
    allocation: dict[Name, Share] | None = Field(
        default=None, description="Arm → its new share; with reallocate alone."
    )
    after: int = Field(
        ge=0,
        description="How many events you have seen; refused where somebody has acted since.",
    )

    def event(self) -> Event:
        """What the catalogue keeps.

        Raises:
            ValidationError: the action lacks what goes with it, or has what does not.
        """
        return Event.model_validate(self.model_dump(exclude={"after"}))


class ModelVersionOut(BaseModel):
    """A registered model's version."""

    name: str
    version: str


class ExperimentArmOut(BaseModel):
    """One arm, what it resolved to when the open phase began, and what it was asked in it.

    In a shadow, arms other than the control are asked with copies, whose answers nobody sees.
    """

    name: str
    model: str
    control: bool
    resolved: ModelVersionOut | None
    share: float | None
    units: int
    answers: int
    failed: int


class PhaseOut(BaseModel):
    """A phase that was opened."""

    number: int
    kind: PhaseKind
    shares: dict[str, float]
    coverage: float | None
    mirrored: float | None
    min_units: int
    max_days: float
    deployment_id: str | None
    opened_at: datetime


class HistoryOut(BaseModel):
    """One thing that was done."""

    number: int
    action: Action
    by: str
    reason: str
    arm: str | None
    allocation: dict[str, float] | None
    deployment_id: str | None
    at: datetime


class RouteOut(BaseModel):
    """Who answers everybody of a deployment from then on; no arm where units are dealt again."""

    number: int
    deployment_id: str
    arm: str | None
    by: str
    reason: str
    at: datetime


class ExperimentOut(BaseModel):
    """An experiment in a list."""

    name: str
    state: State
    hypothesis: str
    owner: str
    unit: str
    version: int
    events: int
    agreed_at: datetime
    phase: PhaseOut | None
    arms: list[ExperimentArmOut]
    answered_by: str | None = Field(description="The arm that answers everybody; none: as dealt.")
    last_event: HistoryOut | None


class OneExperimentOut(ExperimentOut):
    """All of one experiment."""

    specification: dict[str, Any]
    phases: list[PhaseOut]
    history: list[HistoryOut]
    may: list[Action]
    promoted: str | None
    writable: bool = Field(description="Whether this gateway changes experiments at all.")
    opens_phases: bool = Field(description="Whether it would serve the phases that it opens.")


class ActedOut(BaseModel):
    """Where an experiment stands after an event."""

    name: str
    state: State
    events: int
    may: list[Action]
    last_event: HistoryOut
    alias: str | None = Field(
        default=None, description="What became of the registry's alias, after a promotion."
    )
    is_champion: bool | None = Field(
        default=None, description="Whether the alias names the winner, after a promotion."
    )


class AgreedOut(BaseModel):
    """As which version a specification is kept."""

    name: str
    version: int
    digest: str


class ExperimentsOut(BaseModel):
    """All experiments, by name."""

    experiments: list[ExperimentOut]


class RoutesOut(BaseModel):
    """Routes, the newest first."""

    routes: list[RouteOut]


class LedgerEntryOut(BaseModel):
    """One line of a model's alias ledger."""

    number: int
    at: str
    alias: str
    phase: str
    from_version: str | None
    to_version: str | None
    kind: str
    decision: str
    reason: str


class LedgerOut(BaseModel):
    """What a model's aliases name now, and every move of them, the newest first."""

    model: str
    aliases: dict[str, str]
    entries: list[LedgerEntryOut]


def time_of(us: int) -> datetime:
    """Microseconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(us / _US, UTC)


def history_out(recorded: Recorded) -> HistoryOut:
    """An event as the API tells it."""
    return HistoryOut(
        number=recorded.number,
        at=time_of(recorded.at_us),
        **recorded.event.model_dump(),
    )


def acted_out(entry: Entry) -> ActedOut:
    """An experiment after its last event."""
    here = entry.lifecycle
    return ActedOut(
        name=here.specification.name,
        state=here.state,
        events=here.events,
        may=list(here.may),
        last_event=history_out(entry.history[-1]),
    )


def route_out(route: Route) -> RouteOut:
    """A route as the API tells it."""
    return RouteOut(
        number=route.number,
        deployment_id=route.deployment_id,
        arm=route.arm,
        by=route.by,
        reason=route.reason,
        at=time_of(route.at_us),
    )


def phases_out(entry: Entry) -> list[PhaseOut]:
    """The phases that were opened, in order."""
    opening = [each for each in entry.history if each.event.action in OPENING]
    return [
        _phase_out(entry, number, phase, recorded)
        for number, (phase, recorded) in enumerate(
            zip(entry.lifecycle.opened, opening, strict=True), start=1
        )
    ]


def _phase_out(entry: Entry, number: int, opened: OpenedPhase, recorded: Recorded) -> PhaseOut:
    phase = opened.phase
    return PhaseOut(
        number=number,
        kind=phase.kind,
        shares=entry.lifecycle.specification.shares(phase),
        coverage=None if isinstance(phase, ShadowPhase) else phase.coverage,
        mirrored=phase.mirrored if isinstance(phase, ShadowPhase) else None,
        min_units=phase.min_units,
        max_days=phase.max_days,
        deployment_id=opened.deployment_id,
        opened_at=time_of(recorded.at_us),
    )


SPECIFICATION_EXAMPLES: Final[dict[str, Any]] = {
    "a canary, then half and half": {
        "value": {
            "name": "sentiment-int8",
            "hypothesis": "INT8 answers like the float model, at half its cost",
            "owner": "review-analysis",
            "unit": "user",
            "arms": [
                {"name": "float", "model": "models:/matjip-sentiment@champion"},
                {"name": "int8", "model": "models:/matjip-sentiment/7"},
            ],
            "metrics": {
                "primary": {
                    "name": "sentiment_accuracy",
                    "direction": "increase",
                    "margin": 0.02,
                },
                "guardrails": [{"name": "error_rate", "direction": "decrease", "margin": 0.01}],
            },
            "phases": [
                {"kind": "canary", "allocation": {"float": 0.95, "int8": 0.05}},
                {"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}},
            ],
        }
    }
}
EVENT_EXAMPLES: Final[dict[str, Any]] = {
    "roll back": {
        "value": {
            "action": "roll_back",
            "reason": "오답 신고가 늘었다",
            "after": 2,
            "by": "on call",
        }
    },
    "promote an arm": {
        "value": {"action": "promote", "arm": "int8", "reason": "the verdict", "after": 3}
    },
}
