"""Goals: the metrics of an experiment, which way is better, and what a loss leads to.

One primary decides; guardrails roll back; signals pause.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from serving.experiments.metric_names import METRIC_PATTERN, SHARES


class MetricGoal(BaseModel):
    """A metric, which way is better, and how much of a loss is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=METRIC_PATTERN)]
    direction: Literal["increase", "decrease"] = Field(description="Which way is better.")
    margin: float = Field(
        default=0.0,
        ge=0.0,
        allow_inf_nan=False,
        description="Loss that is accepted, in the metric's unit; 0 asks for a gain.",
    )
    quantile: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Of the metric's values, such as 0.95 of latency_ms; without one, their mean.",
    )

    @model_validator(mode="after")
    def _has_quantiles(self) -> Self:
        if self.quantile is not None and self.name in SHARES:
            raise ValueError(
                f"{self.name!r} is a share, so it has no quantile={self.quantile!r}; leave it out, "
                "or name a metric of many values, such as 'latency_ms'"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_no_quantile(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What was agreed before there were quantiles keeps its digest.
        said: dict[str, Any] = plain(self)
        if self.quantile is None:
            said.pop("quantile", None)
        return said

    @property
    def label(self) -> str:
        """The name, and which quantile: "latency_ms", "latency_ms p95"."""
        if self.quantile is None:
            return self.name
        # Ten digits: 0.07 * 100 is not 7 in binary.
        return f"{self.name} p{self.quantile * 100:.10g}"


class MetricGoals(BaseModel):
    """What is measured, and what follows from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    primary: MetricGoal = Field(description="Decides.")
    guardrails: tuple[MetricGoal, ...] = Field(
        default=(), description="Roll back by themselves where the loss exceeds their margin."
    )
    signals: tuple[MetricGoal, ...] = Field(
        default=(), description="Pause, for a person to look, where the loss exceeds their margin."
    )

    @property
    def all(self) -> tuple[MetricGoal, ...]:
        """The primary first."""
        return (self.primary, *self.guardrails, *self.signals)

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        labels = [goal.label for goal in self.all]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"{twice!r} stand twice; give each metric one role")
        return self
