"""The names of metrics: those that follow from what was answered, and those that are fed back.

What counts as asked: a request that was turned away before an arm was asked (429), or that was
wrong itself (4xx), is no ask of an arm. Costs are compared between arms of one experiment, which
are of one kind, so their unit need not be money.
"""

from typing import Final

METRIC_PATTERN: Final = r"^[a-z][a-z0-9_]{0,62}$"
FROM_ANSWERS: Final[dict[str, str]] = {
    "latency_ms": "milliseconds from a request's arrival to its answer",
    "error_rate": "share of requests that the arm could not answer",
    "degraded_rate": "share of answers that are not as they should be, such as invalid output",
    "cost": "cost of an answer: a classifier's milliseconds of compute, which are its share of the "
    "batches that it was part of; a language model's tokens, of prompt and answer",
}
"""Known of every answer, without feedback."""
FROM_FEEDBACK: Final[dict[str, str]] = {
    "sentiment_accuracy": "share of right sentiments",
    "reward": "mean reward",
}
"""Fed back as a sentiment or a reward; any other name is fed back as metric and value."""
NOT_FED_BACK: Final = frozenset({*FROM_ANSWERS, *FROM_FEEDBACK})
SHARES: Final = frozenset({"error_rate", "degraded_rate", "sentiment_accuracy"})
"""Of things that are so or are not: they have no quantiles."""
BOUNDED: Final = SHARES | {"reward"}
"""Those whose every value lies between 0 and 1."""
