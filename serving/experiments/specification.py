"""An experiment as it is agreed before it begins: YAML or JSON in, one frozen object out.

    hypothesis, owner, unit      what is asked, who answers for it, and of whom
    arms                         the control first, then whatever is compared with it
    metrics                      one primary, which decides; guardrails, which roll back; signals
    phases                       shadow, canary, A/B: how much of the traffic, and until when
    stopping                     the level, and when to give up
    layer, holdout, overrides    which units it may meet, and what some of them always meet

Everything that can be wrong is said at once (data/settings.py). What it says is its digest, so an
experiment that was changed after it began is another one.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    computed_field,
    model_validator,
)

from data.errors import ExperimentError, SettingsError
from data.manifest import canonical_digest
from data.settings import check_settings, parse_settings
from serving.dealing import (
    BUCKETS,
    MOST_ARMS,
    Digest,
    LayerPlace,
    Name,
    PhaseKind,
    PhasePlan,
    Share,
)
from serving.experiments.goals import MetricGoals

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
Unit = Literal["user", "restaurant", "request"]
_ORDER: Final[tuple[PhaseKind, ...]] = ("shadow", "canary", "ab")
_MODEL: Final = r"^models:/[^/@\s]+(/[1-9][0-9]*|@[A-Za-z][\w.-]*)$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ExperimentArm(_Frozen):
    """One of the things that are compared: a model, and how it is asked."""

    name: Name
    model: str = Field(
        pattern=_MODEL,
        description="models:/NAME/VERSION or models:/NAME@ALIAS, resolved when a phase opens.",
    )
    prompt: str | None = Field(
        default=None, pattern=r"^[^/@\s]+/[1-9][0-9]*$", description="NAME/VERSION of a prompt."
    )
    parameters: dict[Name, float | int | bool | str] = Field(
        default={}, description="Whatever else the arm is asked with."
    )

    def same_as(self, other: "ExperimentArm") -> bool:
        """Whether two arms would answer alike."""
        return self.model_dump(exclude={"name"}) == other.model_dump(exclude={"name"})


class _Phase(_Frozen):
    min_units: int = Field(default=100, ge=30, description="Of the smallest arm, before it ends.")
    max_days: float = Field(default=28.0, gt=0.0, le=366.0, description="After which it is judged.")


class ShadowPhase(_Phase):
    """The control answers everybody; the others answer a copy of some requests, for the log."""

    kind: Literal["shadow"]
    mirrored: Share = Field(gt=0.0, description="Of the requests, that the others answer too.")


class SplitPhase(_Phase):
    """Every unit that takes part is answered by one arm."""

    kind: Literal["canary", "ab"]
    allocation: dict[Name, Share] = Field(
        min_length=2, description="Arm → its share of the units that take part; they add up to 1."
    )
    coverage: Share = Field(
        default=1.0, gt=0.0, description="Of all units, that take part; the control has the rest."
    )

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(round(share * BUCKETS) for share in self.allocation.values())
        if total != BUCKETS:
            raise ValueError(
                f"allocation={self.allocation!r} adds up to {total / BUCKETS!r}; make it 1"
            )
        empty = sorted(name for name, share in self.allocation.items() if not share)
        if empty:
            raise ValueError(f"arms {empty!r} have a share of 0; give each a share")
        return self


Phase = Annotated[ShadowPhase | SplitPhase, Field(discriminator="kind")]


class Stopping(_Frozen):
    """When enough is known."""

    alpha: float = Field(default=0.05, gt=0.0, lt=0.5, description="Of the whole experiment.")
    tuned_for_units: int = Field(
        default=2_000, ge=1, description="Units at which the interval is narrowest."
    )
    sample_ratio_alpha: float = Field(default=0.002, gt=0.0, lt=0.5)
    max_missing_share: float = Field(
        default=0.05, ge=0.0, le=1.0, description="Answers that may lack an outcome."
    )
    attribution_days: float = Field(
        default=7.0, gt=0.0, le=366.0, description="How late an outcome may come and still count."
    )


def _in_order(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    kinds: list[PhaseKind] = [phase.kind for phase in phases]
    if sorted(kinds, key=_ORDER.index) != kinds or kinds.count("ab") != 1:
        raise ValueError(
            f"phases are {kinds!r}; put shadows before canaries, and end with the one 'ab'"
        )
    return phases


class ExperimentSpecification(_Frozen):
    """All of it."""

    name: Name
    hypothesis: Text
    owner: Text
    unit: Unit
    arms: tuple[ExperimentArm, ...] = Field(
        min_length=2, max_length=MOST_ARMS, description="The control first."
    )
    metrics: MetricGoals
    phases: Annotated[tuple[Phase, ...], Field(min_length=1), AfterValidator(_in_order)]
    stopping: Stopping = Stopping()
    layer: LayerPlace | None = None
    holdout: Share = Field(
        default=0.0, lt=1.0, description="Of all units, that meet no experiment at all."
    )
    overrides: dict[Digest, Name] = Field(
        default={}, description="Hashed unit → the arm that it always meets, as testers do."
    )

    @model_validator(mode="after")
    def _arms_differ(self) -> Self:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"arms are named {twice!r} more than once; name each differently")
        for place, arm in enumerate(self.arms):
            for other in self.arms[:place]:
                if arm.same_as(other):
                    raise ValueError(
                        f"arms {other.name!r} and {arm.name!r} are the same model ({arm.model!r}), "
                        "prompt and parameters, so there is nothing to compare; change one"
                    )
        return self

    @model_validator(mode="after")
    def _overrides_name_arms(self) -> Self:
        strange = sorted(set(self.overrides.values()) - {arm.name for arm in self.arms})
        if strange:
            raise ValueError(f"overrides name {strange!r}, which are no arms")
        return self

    @model_validator(mode="after")
    def _arms_are_allocated(self) -> Self:
        for phase in self.phases:
            if isinstance(phase, SplitPhase):
                self.check_allocation(phase.allocation)
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def digest(self) -> str:
        """64 hex digits: the hash of what it says."""
        return canonical_digest(self.model_dump(mode="json", exclude={"digest"}))

    @property
    def control(self) -> ExperimentArm:
        """What the others are compared with."""
        return self.arms[0]

    def arm(self, name: str) -> ExperimentArm:
        """The arm of that name.

        Raises:
            ExperimentError: there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise ExperimentError(
            f"experiment {self.name!r} has no arm {name!r}; it has "
            f"{[arm.name for arm in self.arms]!r}"
        )

    def shares(self, phase: Phase) -> dict[str, float]:
        """Arm → its share of the units that take part, the control first, which has a shadow's."""
        if isinstance(phase, ShadowPhase):
            return {arm.name: float(arm is self.control) for arm in self.arms}
        return {arm.name: phase.allocation[arm.name] for arm in self.arms}

    def plan(self, phase: Phase, *, version: int, number: int) -> PhasePlan:
        """What a deployment for a phase says of it.

        Args:
            phase: as it was opened.
            version: of this specification, in the catalogue.
            number: how many phases had been opened when it was, itself counted.
        """
        if isinstance(phase, ShadowPhase):
            of_kind: dict[str, Any] = {"mirrored": phase.mirrored}
        else:
            of_kind = {"coverage": phase.coverage, "overrides": self.overrides}
        return PhasePlan(
            experiment=self.name,
            version=version,
            number=number,
            kind=phase.kind,
            layer=self.layer,
            holdout=self.holdout,
            **of_kind,
        )

    def check_allocation(self, allocation: Collection[str]) -> None:
        """See that an allocation names this experiment's arms.

        Raises:
            ValueError: it leaves one out, or names a stranger.
        """
        names = [arm.name for arm in self.arms]
        if set(allocation) != set(names):
            raise ValueError(
                f"the allocation names {sorted(allocation)!r}, the arms are {names!r}; "
                "give each arm a share, and no other"
            )


def read_specification(path: Path) -> ExperimentSpecification:
    """An experiment from a YAML file.

    Raises:
        SettingsError: the file cannot be read, or names every wrong key at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read the experiment {str(path)!r}: {error}; name a YAML file in UTF-8"
        ) from error
    return parse_settings(ExperimentSpecification, text, where=f"experiment {str(path)!r}")


def specification_of(values: Any, *, where: str) -> ExperimentSpecification:
    """An experiment from plain values, as JSON holds them.

    Raises:
        SettingsError: names every wrong key at once.
    """
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key != "digest"}
    return check_settings(ExperimentSpecification, values, where=where)
