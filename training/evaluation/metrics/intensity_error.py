"""How far predicted intensity lies from gold on the scale from -2 to +2."""

from collections.abc import Sequence
from functools import partial

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error

from data.errors import MetricError
from training.evaluation.metrics import Outcome, each_figure

_DESCRIPTION = """
mae: mean absolute error of the expected value. quadratic_weighted_kappa, exact, within_one: of the
likeliest step.
"""
_INPUTS = """
    predictions: five probabilities per row, for the steps -2, -1, 0, 1, 2.
    references: gold steps, -2 to 2.
    explain: give the reason instead of raising for a figure that cannot be computed.
    figures: some of "mae", "quadratic_weighted_kappa", "exact" or "within_one".
"""


class IntensityError(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
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
        figures: Sequence[str] = ("mae",),
        explain: bool = False,  # noqa: FBT001, FBT002  # evaluate passes keywords
    ) -> dict[str, Outcome]:
        gold, probabilities = np.asarray(references), np.asarray(predictions, dtype=np.float64)
        return each_figure(figures, partial(_figure, gold, probabilities), explain=explain)


def _figure(gold: NDArray[np.int64], probabilities: NDArray[np.float64], figure: str) -> float:
    steps = np.arange(-2, 3)
    if probabilities.ndim != 2 or probabilities.shape[1] != len(steps):  # noqa: PLR2004  # a table
        raise MetricError(
            f"intensity predictions have shape {probabilities.shape!r}; give (rows, 5)"
        )
    if not np.isin(gold, steps).all():
        raise MetricError("intensity references must lie in -2…2; map the labels first")
    likeliest = steps[probabilities.argmax(axis=1)]
    if figure == "mae":
        return float(mean_absolute_error(gold, probabilities @ steps))
    if figure == "exact":
        return float(accuracy_score(gold, likeliest))
    if figure == "within_one":
        return float((np.abs(gold - likeliest) <= 1).mean())
    if figure != "quadratic_weighted_kappa":
        raise MetricError(f"{figure!r} is not a figure of intensity_error; ask for 'mae'")
    if len(np.unique(gold)) < 2:  # noqa: PLR2004  # agreement by chance is total with one step
        raise MetricError(
            f"{figure!r} needs at least two gold steps, the rows have only {int(gold[0])!r}"
        )
    return float(cohen_kappa_score(gold, likeliest, labels=steps, weights="quadratic"))
