"""The names of metrics: those that follow from what was answered, and those that are fed back."""

from typing import Final

METRIC_PATTERN: Final = r"^[a-z][a-z0-9_]{0,62}$"
FROM_ANSWERS: Final[dict[str, str]] = {
    "latency_ms": "milliseconds from a request's arrival to its answer",
    "error_rate": "share of requests that the arm could not answer",
    "degraded_rate": "share of answers that are not as they should be, such as invalid output",
    "cost": "cost of an answer",
}
"""Known of every answer, without feedback."""
FROM_FEEDBACK: Final[dict[str, str]] = {
    "sentiment_accuracy": "share of right sentiments",
    "reward": "mean reward",
}
"""Fed back as a sentiment or a reward; any other name is fed back as metric and value."""
NOT_FED_BACK: Final = frozenset({*FROM_ANSWERS, *FROM_FEEDBACK})
SHARES: Final = frozenset({"error_rate", "degraded_rate", "sentiment_accuracy"})
"""Each ask counts 0 or 1, so there is no quantile of it."""
