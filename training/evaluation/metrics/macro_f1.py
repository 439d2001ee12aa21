"""Macro-F1 of single-label classes, accuracy, and the F1 of each class."""

from collections.abc import Sequence
from functools import partial

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from data.errors import MetricError
from training.evaluation.metrics import Outcome, each_figure

_DESCRIPTION = """
Macro-F1 is the plain mean of F1 over the classes that have gold rows. A class without gold rows
has no recall, so it is left out of the mean; answers of that class still cost the others theirs.
"""
_INPUTS = """
    predictions: class numbers, 0 to classes - 1.
    references: gold class numbers.
    classes: how many classes there are.
    explain: give the reason instead of raising for a figure that cannot be computed.
    figures: some of "macro_f1", "accuracy", or "f1:2" for the class numbered 2.
"""


class MacroF1(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """See the module's docstring."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int32"), "references": datasets.Value("int32")}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[int],
        references: Sequence[int],
        classes: int = 3,
        figures: Sequence[str] = ("macro_f1",),
        explain: bool = False,  # noqa: FBT001, FBT002  # evaluate passes keywords
    ) -> dict[str, Outcome]:
        gold, predicted = np.asarray(references), np.asarray(predictions)
        return each_figure(figures, partial(_figure, gold, predicted, classes), explain=explain)


def _figure(
    gold: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, figure: str
) -> float:
    present = np.unique(gold)
    if not np.isin(np.concatenate([gold, predicted]), np.arange(classes)).all():
        raise MetricError(f"class numbers must lie in 0…{classes - 1}; map the labels first")
    if figure == "accuracy":
        return float(accuracy_score(gold, predicted))
    if len(present) < 2:  # noqa: PLR2004  # one class cannot be told from another
        raise MetricError(
            f"{figure!r} needs at least two gold classes, the rows have {present.tolist()!r}; "
            "evaluate on a part that holds more than one"
        )
    if figure == "macro_f1":
        return float(f1_score(gold, predicted, labels=present, average="macro", zero_division=0.0))
    name, _, number = figure.partition(":")
    if name != "f1" or not number.isdigit():
        raise MetricError(f"{figure!r} is not a figure of macro_f1; ask for macro_f1 or f1:0")
    if int(number) not in present:
        raise MetricError(f"{figure!r}: no gold row has class {number}; label some first")
    scores = f1_score(gold, predicted, labels=[int(number)], average=None, zero_division=0.0)
    return float(scores[0])
