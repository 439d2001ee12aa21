"""What was agreed before an experiment began: metric, margin, levels, and which answers count."""

from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Metric = Literal["sentiment_accuracy", "reward"]
METRIC_WORDS: Final[dict[Metric, str]] = {
    "sentiment_accuracy": "share of right sentiments",
    "reward": "mean reward",
}


class DecisionRule(BaseModel):
    """What was agreed before the experiment began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric = "sentiment_accuracy"
    margin: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Loss that is accepted; 0 asks for a gain."
    )
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    min_exposures_per_arm: int = Field(
        default=100, ge=30, description="Units too: the interval is silent before."
    )
    tuned_for_units: int = Field(
        default=2_000, ge=1, description="Units at which the interval is narrowest."
    )
    srm_alpha: float = Field(default=0.001, gt=0.0, lt=1.0)
    max_missing_share: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="Of a unit's answers, how many may lack an outcome, on average over units.",
    )
    attribution_days: float | None = Field(
        default=None,
        gt=0.0,
        le=36_500.0,
        description="How late after its answer an outcome may come and still count; None: ever.",
    )
    closed_windows_only: bool = Field(
        default=False, description="Count an answer only once its outcome can come no more."
    )
    settling_days: float = Field(
        default=0.0,
        ge=0.0,
        le=36_500.0,
        description="From a unit's first answer on, while what is new to it does not count.",
    )

    @model_validator(mode="after")
    def _has_a_window_to_close(self) -> Self:
        if self.closed_windows_only and self.attribution_days is None:
            raise ValueError(
                "closed_windows_only without attribution_days; say how late an outcome may come"
            )
        return self
