"""Readings of guardrails, as the gateway, the API, the web page and reports show them."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["guardrail", "signal"]


class GuardrailReading(BaseModel):
    """What a guardrail or signal shows of one challenger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    metric: str = Field(description="With its quantile: latency_ms, latency_ms p95.")
    arm: str
    direction: Literal["increase", "decrease"] = Field(description="Which way is better.")
    margin: float = Field(description="Loss that is accepted.")
    units: int = Field(description="Of the arm, with a value.")
    control_units: int
    value: float | None = Field(description="Of the arm.")
    control_value: float | None
    estimate: float | None = Field(description="Of the difference, arm minus control.")
    low: float | None = Field(description="Its lower end by itself; null while it is open.")
    high: float | None = Field(description="Its upper end by itself; null while it is open.")
    breached: bool
    sentence: str

    @property
    def subject(self) -> str:
        """The metric and the arm, as sentences name them."""
        return f"{self.metric!r} of {self.arm!r}"

    @property
    def least_loss(self) -> float | None:
        """The loss is at least so much; below zero it may be a gain. None while nothing is known.

        A breach is a least loss above the margin.
        """
        if self.direction == "decrease":
            return self.low
        return None if self.high is None else -self.high


class SampleRatioReading(BaseModel):
    """Whether units are dealt as they were meant to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p: float = Field(description="Anytime-valid p-value, the smallest until now.")
    broken: bool
    sentence: str


class PhaseLook(BaseModel):
    """All that one look at a phase shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    deployment_id: str
    looked_at_us: int
    behind: bool = Field(description="There were more rows than one look reads.")
    units: dict[str, int] = Field(description="Dealt to each arm.")
    readings: tuple[GuardrailReading, ...]
    sample_ratio: SampleRatioReading | None = Field(description="None of a shadow.")

    def breached(self, role: Role) -> tuple[GuardrailReading, ...]:
        """The readings of a role that show too large a loss."""
        return tuple(each for each in self.readings if each.breached and each.role == role)


def sentence_of(reading: GuardrailReading, loss: float, control: str) -> str:
    """A reading in words.

    Args:
        reading: all but its sentence.
        loss: the least that it is, infinitely negative while nothing is known.
        control: its name.
    """
    if reading.value is None or reading.control_value is None:
        return f"{reading.subject} cannot be compared: an arm has no value yet."
    said = (
        f"{reading.subject} is {reading.value:.4g} over {reading.units:,} units, and "
        f"{reading.control_value:.4g} over {reading.control_units:,} of {control!r}"
    )
    if math.isinf(loss):
        return f"{said}: too little to tell yet."
    if reading.breached:
        return (
            f"{said}: worse by at least {loss:.4g}, however often one looks, where "
            f"{reading.margin:.4g} is accepted."
        )
    return f"{said}: no loss beyond the accepted {reading.margin:.4g} is shown."
