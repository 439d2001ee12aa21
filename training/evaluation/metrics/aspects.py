"""Aspects: whether one is spoken of, and how."""

from collections.abc import Sequence
from functools import partial

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from data.errors import MetricError
from training.evaluation.metrics import Outcome, each_figure

_DESCRIPTION = """
presence_macro_f1: F1 of "spoken of", mean over the aspects whose gold rows have both answers.
state_macro_f1: over all cells of the table, F1 of each state but "absent", mean over the states
that have gold cells; a state given to an absent aspect is a mistake.
"""
_INPUTS = """
    predictions: a state number per aspect and row; 0 is absent, 1 to 4 the polarities.
    references: the gold state numbers.
    explain: give the reason instead of raising for a figure that cannot be computed.
    figures: some of "presence_macro_f1", "state_macro_f1", "presence_f1:2", "state_macro_f1:2";
        the last two are of the aspect numbered 2.
"""


class Aspects(evaluate.Metric):  # type: ignore[misc]  # evaluate is untyped
    """See the module's docstring."""

    def _info(self) -> evaluate.MetricInfo:
        table = datasets.Sequence(datasets.Value("int32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": table, "references": table}),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[int]],
        references: Sequence[Sequence[int]],
        figures: Sequence[str] = ("presence_macro_f1",),
        explain: bool = False,  # noqa: FBT001, FBT002  # evaluate passes keywords
    ) -> dict[str, Outcome]:
        gold, predicted = np.asarray(references), np.asarray(predictions)
        return each_figure(figures, partial(_figure, gold, predicted), explain=explain)


def _figure(gold: NDArray[np.int64], predicted: NDArray[np.int64], figure: str) -> float:
    if gold.ndim != 2 or gold.shape != predicted.shape:  # noqa: PLR2004  # a table
        raise MetricError(
            f"aspect states have shape {predicted.shape!r}, gold {gold.shape!r}; give equal tables"
        )
    name, _, number = figure.partition(":")
    columns = [int(number)] if number.isdigit() else list(range(gold.shape[1]))
    if name == "state_macro_f1":
        return _state_macro_f1(gold[:, columns], predicted[:, columns], figure)
    if name not in {"presence_macro_f1", "presence_f1"}:
        raise MetricError(f"{figure!r} is not a figure of aspects; ask for presence_macro_f1")
    mentioned = gold > 0
    usable = [i for i in columns if 0 < mentioned[:, i].sum() < len(gold)]
    if not usable:
        raise MetricError(f"{figure!r} needs gold rows with and without the aspect")
    scores = [f1_score(mentioned[:, i], predicted[:, i] > 0, zero_division=0.0) for i in usable]
    return float(np.mean(scores))


def _state_macro_f1(gold: NDArray[np.int64], predicted: NDArray[np.int64], figure: str) -> float:
    present = [state for state in np.unique(gold).tolist() if state > 0]
    if not present:
        raise MetricError(f"{figure!r}: no gold row speaks of the aspect; label some first")
    return float(
        f1_score(
            gold.ravel(), predicted.ravel(), labels=present, average="macro", zero_division=0.0
        )
    )
