"""The metrics once more, as functions of review weights, for the bootstrap.

Each builder precomputes one row per review; the statistic it returns is then a product of weights
(resamples, n) with that table. With all weights 1 each gives what its `evaluate` module gives; the
tests hold them to it.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from data.contract import INTENSITIES
from training.evaluation.intervals import Statistic, Values, Weights

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]


def confusion_table(gold: Integers, predicted: Integers, classes: int) -> Floats:
    """(n, classes * classes) one-hot cell of each review; unlabelled rows (-1) are zero.

    Two-dimensional inputs (n, cells) are pooled: a review's row counts all its cells.
    """
    gold2, predicted2 = gold.reshape(len(gold), -1), predicted.reshape(len(gold), -1)
    table = np.zeros((len(gold), classes * classes), dtype=np.float32)
    rows, columns = np.nonzero(gold2 >= 0)
    cells = gold2[rows, columns] * classes + predicted2[rows, columns]
    np.add.at(table, (rows, cells), 1.0)
    return table


def _matrices(weights: Weights, table: Floats) -> Values:
    classes = round(table.shape[1] ** 0.5)
    return np.asarray(weights @ table, dtype=np.float64).reshape(-1, classes, classes)


def _class_f1(matrices: Values) -> Values:
    """(resamples, classes); NaN for a class without gold weight."""
    true = np.diagonal(matrices, axis1=1, axis2=2)
    gold, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(gold > 0, 2 * true / (gold + predicted), np.nan))


def _mean(values: Values) -> Values:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis=-1) / defined.sum(axis=-1))


def macro_f1(gold: Integers, predicted: Integers, classes: int, *, first: int = 0) -> Statistic:
    """Macro-F1 over classes ``first`` and up that have gold weight."""
    table = confusion_table(gold, predicted, classes)
    return lambda weights: _mean(_class_f1(_matrices(weights, table))[:, first:])


def class_f1(gold: Integers, predicted: Integers, classes: int, number: int) -> Statistic:
    """F1 of one class."""
    table = confusion_table(gold, predicted, classes)
    return lambda weights: np.asarray(_class_f1(_matrices(weights, table))[:, number])


def weighted_mean(values: NDArray[np.float64], mask: NDArray[np.bool_]) -> Statistic:
    """Mean of a value per review over the masked reviews."""
    table = np.stack([np.where(mask, values, 0.0), mask], axis=1).astype(np.float32)

    def statistic(weights: Weights) -> Values:
        total, weight = np.asarray(weights @ table, dtype=np.float64).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(total / weight)

    return statistic


def quadratic_kappa(gold: Integers, predicted: Integers) -> Statistic:
    """Cohen's kappa with squared distances, over the five steps."""
    table = confusion_table(gold, predicted, len(INTENSITIES))
    steps = np.arange(len(INTENSITIES))
    distance = (steps[:, None] - steps[None, :]) ** 2

    def statistic(weights: Weights) -> Values:
        observed = _matrices(weights, table)
        total = observed.sum(axis=(1, 2), keepdims=True)
        expected = observed.sum(axis=2)[:, :, None] * observed.sum(axis=1)[:, None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(
                1.0 - (distance * observed).sum((1, 2)) / (distance * expected / total).sum((1, 2))
            )

    return statistic


def auroc(gold: Integers, scores: NDArray[np.float64]) -> Statistic:
    """Area under the ROC curve of one label; unlabelled rows (-1) count for nothing."""
    positive, negative = np.flatnonzero(gold == 1), np.flatnonzero(gold == 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    # A pair is in order if the negative lies below the positive; a tie is half a pair.
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    up_to = np.searchsorted(scores[negative], scores[positive], side="right")

    def statistic(weights: Weights) -> Values:
        yes, no = weights[:, positive], weights[:, negative]
        # Counts stay far below 2**24, so that sums of them are exact in single precision.
        summed = np.zeros((len(weights), len(negative) + 1), dtype=np.float32)
        np.cumsum(no, axis=1, out=summed[:, 1:])
        pairs = yes * (summed[:, below] + summed[:, up_to])
        total = yes.sum(axis=1, dtype=np.float64) * summed[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(0.5 * pairs.sum(axis=1, dtype=np.float64) / total)

    return statistic


def calibration_error(gold: Integers, probabilities: NDArray[np.float64], bins: int) -> Statistic:
    """Expected calibration error with bins of equal width."""
    labelled = gold >= 0
    confidence = probabilities.max(axis=1)
    gap = np.where(labelled, (probabilities.argmax(axis=1) == gold) - confidence, 0.0)
    table = np.zeros((len(gold), bins + 1), dtype=np.float32)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    table[np.arange(len(gold)), index] = gap
    table[:, bins] = labelled

    def statistic(weights: Weights) -> Values:
        sums = np.asarray(weights @ table, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.abs(sums[:, :bins]).sum(axis=1) / sums[:, bins])

    return statistic


def mean_of(statistics: list[Statistic]) -> Statistic:
    """Plain mean of several statistics; NaN only where none is defined."""
    return partial(_mean_of, statistics)


def _mean_of(statistics: list[Statistic], weights: Weights) -> Values:
    return _mean(np.stack([statistic(weights) for statistic in statistics], axis=1))
