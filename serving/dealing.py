"""How units are dealt among a deployment's arms: names, shares, and the phase that they belong to.

Shares are counted in buckets of 1/10,000. Without a phase everybody takes part; the phase of an
experiment says who does, and what becomes of the others.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

BUCKETS: Final = 10_000
"""Shares are counted in buckets, so a share has at most four decimals."""
MOST_ARMS: Final = 10
_ROUNDING: Final = 1e-6

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Lower-case letters, digits and hyphens: it stands in paths, tags and addresses."""
ArmName = Name
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PhaseKind = Literal["shadow", "canary", "ab"]


def _whole_buckets(share: float) -> float:
    if abs(share * BUCKETS - round(share * BUCKETS)) > _ROUNDING:
        raise ValueError(f"share={share!r} is finer than 1/{BUCKETS}; round it to 4 decimals")
    return share


Share = Annotated[float, Field(ge=0.0, le=1.0), AfterValidator(_whole_buckets)]


class LayerPlace(BaseModel):
    """The part of a layer that an experiment owns: no unit meets two experiments of one layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    start: int = Field(ge=0, lt=BUCKETS, description="The first bucket of it.")
    stop: int = Field(gt=0, le=BUCKETS, description="The first bucket that is not its own.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.start >= self.stop:
            raise ValueError(f"start={self.start!r} is not before stop={self.stop!r}")
        return self

    def overlaps(self, other: "LayerPlace") -> bool:
        """Whether a bucket would have two owners."""
        return self.name == other.name and self.start < other.stop and other.start < self.stop


class PhasePlan(BaseModel):
    """Which phase of an experiment a deployment serves, and which units take part in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: Name
    version: int = Field(ge=1, description="Of what was agreed.")
    number: int = Field(ge=1, description="1 for the first phase; every allocation has its own.")
    kind: PhaseKind
    mirrored: Share = Field(
        default=0.0, description="Of the requests, that a shadow's other arms answer too."
    )
    coverage: Share = Field(default=1.0, gt=0.0, description="Of all units, that take part.")
    layer: LayerPlace | None = None
    holdout: Share = Field(default=0.0, lt=1.0, description="Of all units, that meet none at all.")
    overrides: dict[Digest, ArmName] = Field(
        default={}, description="Hashed unit → the arm that it always meets."
    )

    @model_validator(mode="after")
    def _a_shadow_mirrors(self) -> Self:
        if (self.mirrored > 0.0) != (self.kind == "shadow"):
            raise ValueError(
                f"kind={self.kind!r} with mirrored={self.mirrored!r}; a shadow mirrors some of the "
                "requests, and nothing else does"
            )
        return self
