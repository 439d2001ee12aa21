"""Multi-label emotions: AUROC of the scores, F1 of what reaches the model's thresholds."""

from collections.abc import Sequence
from functools import partial

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from data.errors import MetricError
from training.evaluation.metrics import Outcome, each_figure

_DESCRIPTION = """
Macro figures are plain means over the labels that have both gold classes; labels with one class
only have no AUROC, and their F1 says nothing, so they are left out.
"""
_INPUTS = """
    predictions: one score per label and row, 0 to 1.
    references: 1 where the label is gold, else 0.
    thresholds: a score at or above its label's threshold counts as predicted.
    explain: give the reason instead of raising for a figure that cannot be computed.
    figures: some of "auroc", "macro_f1", or "auroc:3" and "f1:3" for the label numbered 3.
"""


class Emotions(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """See the module's docstring."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int32")),
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[Sequence[int]],
        thresholds: Sequence[float] | None = None,
        figures: Sequence[str] = ("auroc",),
        explain: bool = False,  # noqa: FBT001, FBT002  # evaluate passes keywords
    ) -> dict[str, Outcome]:
        gold = np.asarray(references)
        scores = np.asarray(predictions, dtype=np.float64)
        return each_figure(figures, partial(_figure, gold, scores, thresholds), explain=explain)


def _figure(
    gold: NDArray[np.int64],
    scores: NDArray[np.float64],
    thresholds: Sequence[float] | None,
    figure: str,
) -> float:
    if gold.ndim != 2 or gold.shape != scores.shape:  # noqa: PLR2004  # a table of rows and labels
        raise MetricError(
            f"emotion scores have shape {scores.shape!r}, gold {gold.shape!r}; give equal tables"
        )
    both = np.flatnonzero((gold.min(axis=0) == 0) & (gold.max(axis=0) == 1))
    name, _, number = figure.partition(":")
    labels = np.asarray([int(number)]) if number.isdigit() else both
    if not len(labels) or not np.isin(labels, both).all():
        raise MetricError(
            f"{figure!r} needs gold rows with and without the label; "
            f"only the labels numbered {both.tolist()!r} have both"
        )
    if name == "auroc":
        return float(np.mean([roc_auc_score(gold[:, i], scores[:, i]) for i in labels]))
    if name not in {"macro_f1", "f1"}:
        raise MetricError(f"{figure!r} is not a figure of emotions; ask for 'auroc'")
    if thresholds is None or len(thresholds) != gold.shape[1]:
        raise MetricError(f"{figure!r} needs one threshold per label, got {thresholds!r}")
    predicted = scores >= np.asarray(thresholds)
    return float(
        np.mean([f1_score(gold[:, i], predicted[:, i], zero_division=0.0) for i in labels])
    )
