"""Whether probabilities mean what they say: expected calibration error and Brier score."""

from collections.abc import Sequence
from functools import partial

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from data.errors import MetricError
from training.evaluation.metrics import Outcome, each_figure

_DESCRIPTION = """
ece: rows fall into bins of equal width by the probability of their likeliest class; the mean over
rows of |accuracy - mean probability| of their bin. brier: mean squared distance between the
probabilities and the gold class, summed over classes (0 best, 2 worst).
"""
_INPUTS = """
    predictions: a probability per class and row.
    references: gold class numbers.
    bins: bins of equal width over 0…1.
    explain: give the reason instead of raising for a figure that cannot be computed.
    figures: some of "ece" or "brier".
"""


class Calibration(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """See the module's docstring."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int32"),
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[int],
        bins: int = 10,
        figures: Sequence[str] = ("ece",),
        explain: bool = False,  # noqa: FBT001, FBT002  # evaluate passes keywords
    ) -> dict[str, Outcome]:
        gold, probabilities = np.asarray(references), np.asarray(predictions, dtype=np.float64)
        return each_figure(figures, partial(_figure, gold, probabilities, bins), explain=explain)


def _figure(
    gold: NDArray[np.int64], probabilities: NDArray[np.float64], bins: int, figure: str
) -> float:
    if len(np.unique(gold)) < 2:  # noqa: PLR2004  # always saying the one class looks perfect
        raise MetricError(f"{figure!r} needs at least two gold classes")
    if figure == "brier":
        truth = np.eye(probabilities.shape[1])[gold]
        return float(((probabilities - truth) ** 2).sum(axis=1).mean())
    if figure != "ece":
        raise MetricError(f"{figure!r} is not a figure of calibration; ask for 'ece'")
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == gold
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    error = sum(
        abs(float((correct[index == b] - confidence[index == b]).sum())) for b in range(bins)
    )
    return error / len(gold)
