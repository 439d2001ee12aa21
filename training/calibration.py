"""Temperatures and thresholds, chosen on validation data, so that probabilities mean what they say.

Temperature scaling: Guo et al. 2017, arXiv 1706.04599.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from data.contract import EMOTIONS, Emotion
from serving.engines.protocol import Logits
from serving.model_folder import Temperatures
from serving.predictions import ProbabilityArrays, probabilities
from training.batches import Targets

LEAST_ROWS: Final = 30
"""Fewer labelled rows than this leave a head uncalibrated: the fit would be noise."""
TINY: Final = 1e-12


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.clip(values, TINY, 1.0)))


def _states(targets: Targets) -> NDArray[np.int64]:
    mentioned, positive, negative = np.moveaxis(targets.aspects > 0, -1, 0)
    state = np.where(positive & negative, 4, np.where(positive, 3, np.where(negative, 1, 2)))
    return np.where(mentioned, state, 0)


def _likelihoods(targets: Targets) -> dict[str, Callable[[ProbabilityArrays], float]]:
    rows = np.arange(len(targets.sentiment))

    def mean(values: NDArray[np.float64], mask: NDArray[np.float32]) -> float:
        return float(values[mask > 0].mean())

    def emotions(arrays: ProbabilityArrays) -> float:
        present = targets.emotions > 0
        chosen = np.where(present, arrays.emotions, 1.0 - arrays.emotions)
        return mean(_log(chosen).mean(1), targets.emotions_mask)

    def aspects(arrays: ProbabilityArrays) -> float:
        chosen = np.take_along_axis(arrays.aspects, _states(targets)[:, :, None], 2)[:, :, 0]
        return mean(_log(chosen).mean(1), targets.aspects_mask)

    return {
        "sentiment": lambda arrays: mean(
            _log(arrays.sentiment[rows, targets.sentiment]), targets.sentiment_mask
        ),
        "intensity": lambda arrays: mean(
            _log(arrays.intensity[rows, targets.intensity]), targets.intensity_mask
        ),
        "emotions": emotions,
        "aspects": aspects,
    }


def fit_temperatures(logits: Logits, targets: Targets) -> Temperatures:
    """The temperature of each head that makes the validation labels likeliest.

    A head with fewer than ``LEAST_ROWS`` labelled rows keeps temperature 1.
    """
    fitted = {}
    for task, likelihood in _likelihoods(targets).items():
        if getattr(targets, f"{task}_mask").sum() < LEAST_ROWS:
            continue

        def loss(
            log_temperature: float,
            task: str = task,
            likelihood: Callable[[ProbabilityArrays], float] = likelihood,
        ) -> float:
            temperatures = Temperatures(**{task: float(np.exp(log_temperature))})
            return -likelihood(probabilities(logits, temperatures))

        best = minimize_scalar(loss, bounds=(np.log(0.25), np.log(8.0)), method="bounded")
        fitted[task] = float(np.exp(best.x))
    return Temperatures(**fitted)


def choose_emotion_thresholds(
    scores: NDArray[np.float64], targets: Targets, *, prior_weight: float = 4.0
) -> dict[Emotion, float]:
    """Per emotion the threshold with the best F1 on validation data, drawn towards 0.5.

    Args:
        scores: (n, 8) calibrated scores.
        targets: gold of the same rows.
        prior_weight: a threshold found on n positives counts n against this many votes for the
            one that serves all emotions together: rare emotions would otherwise fit noise.
    """
    rows = targets.emotions_mask > 0
    gold, scores = targets.emotions[rows] > 0, scores[rows]
    if not gold.any():
        return dict.fromkeys(EMOTIONS, 0.5)
    grid = np.linspace(0.05, 0.8, 31)

    def best(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
        chosen = score[None] >= grid.reshape(-1, *([1] * score.ndim))
        axes = tuple(range(1, chosen.ndim))
        hits = (chosen & truth[None]).sum(axes)
        f1 = 2 * hits / np.maximum(chosen.sum(axes) + truth.sum(), 1)
        return float(grid[int(f1.argmax())])

    shared = best(gold, scores)
    thresholds: dict[Emotion, float] = {}
    for column, emotion in enumerate(EMOTIONS):
        positives = int(gold[:, column].sum())
        own = best(gold[:, column], scores[:, column]) if positives else shared
        thresholds[emotion] = (positives * own + prior_weight * shared) / (positives + prior_weight)
    return thresholds
