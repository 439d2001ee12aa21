"""What may happen to an experiment, and when: events in, its state out, nothing else.

    draft ─start─► running ─advance─► running … ─promote─► promoted
                    │  ▲  │
                pause│  │resume  reallocate opens a phase of its own
                    ▼  │
                   paused            roll_back ─► rolled_back, abandon ─► abandoned

The events are kept, one after the other, and the state is what they add up to: a process that is
killed between two of them leaves the state of the first. Every allocation has a phase of its own,
so no phase mixes units that were dealt by different shares.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from data.errors import ExperimentError
from serving.dealing import Name, PhasePlan, Share
from serving.experiments.specification import (
    ExperimentSpecification,
    Phase,
    ShadowPhase,
    SplitPhase,
)

State = Literal["draft", "running", "paused", "promoted", "rolled_back", "abandoned"]
Action = Literal[
    "start", "advance", "reallocate", "pause", "resume", "promote", "roll_back", "abandon"
]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
OPENING: Final[frozenset[Action]] = frozenset({"start", "advance", "reallocate"})
"""Those that open a phase."""
ENDED: Final[frozenset[State]] = frozenset({"promoted", "rolled_back", "abandoned"})

DeploymentId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
# Action → the states that it may be taken in, and the one it leads to.
_STEPS: Final[dict[Action, tuple[tuple[State, ...], State]]] = {
    "start": (("draft",), "running"),
    "advance": (("running",), "running"),
    "reallocate": (("running",), "running"),
    "pause": (("running",), "paused"),
    "resume": (("paused",), "running"),
    "promote": (("running",), "promoted"),
    "roll_back": (("running", "paused"), "rolled_back"),
    "abandon": (("draft", "running", "paused"), "abandoned"),
}


class Event(BaseModel):
    """One thing that was done to an experiment.

    Attributes:
        arm: which arm is promoted; with no other action.
        allocation: the shares of the phase that it opens; with ``reallocate`` alone.
        deployment_id: what serves the phase that it opens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Action
    by: str = Field(min_length=1, max_length=200, description="A person, or the part that did it.")
    reason: str = Field(min_length=1, max_length=2_000)
    arm: Name | None = None
    allocation: dict[Name, Share] | None = None
    deployment_id: DeploymentId | None = None

    @model_validator(mode="after")
    def _says_what_it_needs(self) -> Self:
        for field, action in (("arm", "promote"), ("allocation", "reallocate")):
            given = getattr(self, field)
            if (given is not None) != (self.action == action):
                raise ValueError(
                    f"action={self.action!r} with {field}={given!r}; {field} goes with {action!r}, "
                    "and with no other"
                )
        if self.deployment_id is not None and self.action not in OPENING:
            raise ValueError(
                f"action={self.action!r} with deployment_id={self.deployment_id!r}; only "
                f"{sorted(OPENING)!r} open a phase, which a deployment serves"
            )
        return self


@dataclass(frozen=True)
class OpenedPhase:
    """A phase that was opened.

    Attributes:
        planned: its place in the specification's phases.
        phase: what it asks, with the allocation that it really has.
        deployment_id: what serves it; None where nothing was put to work.
    """

    planned: int
    phase: Phase
    deployment_id: str | None = None


@dataclass(frozen=True)
class Lifecycle:
    """Where an experiment stands.

    Attributes:
        specification: what was agreed.
        state: what it does now.
        opened: its phases so far, the current one last.
        events: how many brought it here.
        promoted: the arm that won.
    """

    specification: ExperimentSpecification
    state: State = "draft"
    opened: tuple[OpenedPhase, ...] = ()
    events: int = 0
    promoted: str | None = None

    @classmethod
    def of(cls, specification: ExperimentSpecification, events: Iterable[Event]) -> Self:
        """What events add up to.

        Raises:
            ExperimentError: one of them was not allowed where it stands.
        """
        here = cls(specification)
        for event in events:
            here = here.after(event)
        return here

    @property
    def current(self) -> OpenedPhase | None:
        """The phase that is open, or was when the experiment ended; None in a draft."""
        return self.opened[-1] if self.opened else None

    def plan(self, version: int) -> PhasePlan:
        """What a deployment for the phase that is open says of it.

        Raises:
            ExperimentError: no phase is open yet.
        """
        if self.current is None:
            raise ExperimentError(
                f"experiment {self.specification.name!r} is a draft and has no phase; start it"
            )
        number = len(self.opened)
        return self.specification.plan(self.current.phase, version=version, number=number)

    @property
    def may(self) -> tuple[Action, ...]:
        """What may be done now."""
        return tuple(action for action in ACTIONS if self._why_not(action) is None)

    def after(self, event: Event) -> Self:
        """Where it stands after one more event.

        Raises:
            ExperimentError: that may not be done now; the message says what may.
        """
        why_not = self._why_not(event.action)
        if why_not is not None:
            raise ExperimentError(
                f"cannot {event.action!r} experiment {self.specification.name!r}: {why_not}; now "
                f"it may be {', '.join(map(repr, self.may)) or 'nothing: it has ended'}"
            )
        if event.arm is not None:
            arm = self.specification.arm(event.arm)
            if arm is self.specification.control:
                raise ExperimentError(
                    f"arm {event.arm!r} is the control of {self.specification.name!r} and serves "
                    "already; promote another, or roll back"
                )
        return replace(
            self,
            state=_STEPS[event.action][1],
            opened=self.opened + self._opens(event),
            events=self.events + 1,
            promoted=event.arm,
        )

    def _why_not(self, action: Action) -> str | None:
        allowed, _ = _STEPS[action]
        if self.state not in allowed:
            return f"it is {self.state!r}"
        here = self.current
        if here is None:
            return None
        if action == "advance" and here.planned + 1 == len(self.specification.phases):
            return "its last phase is open"
        if action == "reallocate" and isinstance(here.phase, ShadowPhase):
            return "a shadow deals out no units"
        if action == "promote" and here.phase.kind != "ab":
            return f"phase {here.phase.kind!r} is no comparison"
        return None

    def _opens(self, event: Event) -> tuple[OpenedPhase, ...]:
        here = self.current
        if event.action == "reallocate" and here is not None:
            dealt = self._dealt_anew(here.phase, event.allocation)
            return (OpenedPhase(here.planned, dealt, event.deployment_id),)
        if event.action not in OPENING:
            return ()
        planned = 0 if here is None else here.planned + 1
        return (OpenedPhase(planned, self.specification.phases[planned], event.deployment_id),)

    def _dealt_anew(self, phase: Phase, allocation: dict[str, float] | None) -> SplitPhase:
        before = phase.model_dump()
        try:
            self.specification.check_allocation(allocation or {})
            after = SplitPhase.model_validate(before | {"allocation": allocation})
        except ValueError as error:
            wrong = error.errors() if isinstance(error, ValidationError) else [{"msg": str(error)}]
            raise ExperimentError(
                f"allocation={allocation!r} of experiment {self.specification.name!r}: "
                f"{'; '.join(str(line['msg']) for line in wrong)}"
            ) from error
        if after == phase:
            raise ExperimentError(
                f"allocation={allocation!r} is what {self.specification.name!r} has already; a new "
                "phase would only lose what was counted"
            )
        return after
