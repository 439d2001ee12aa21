"""Temperatures and thresholds, chosen on validation data, so that probabilities mean what they say.

Temperature scaling: Guo et al. 2017, arXiv 1706.04599.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from data.contract import ASPECTS, EMOTIONS
from serving.logits import Logits
from serving.model_folder import ModelSpec, Temperatures
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


def choose_thresholds(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], *, prior_weight: float = 4.0
) -> list[float]:
    """Per label the threshold with the best F1 on validation data, drawn towards a shared one.

    Args:
        scores: (n, labels) calibrated probabilities.
        truth: (n, labels) gold of the same rows.
        prior_weight: a threshold found on n positives counts n against this many votes for the
            one that serves all labels together: rare labels would otherwise fit noise.
    """
    if not truth.any():
        return [0.5] * scores.shape[1]
    grid = np.linspace(0.05, 0.8, 31)

    def best(gold: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
        chosen = score[None] >= grid.reshape(-1, *([1] * score.ndim))
        axes = tuple(range(1, chosen.ndim))
        hits = (chosen & gold[None]).sum(axes)
        f1 = 2 * hits / np.maximum(chosen.sum(axes) + gold.sum(), 1)
        return float(grid[int(f1.argmax())])

    shared = best(truth, scores)
    thresholds = []
    for column in range(scores.shape[1]):
        positives = int(truth[:, column].sum())
        own = best(truth[:, column], scores[:, column]) if positives else shared
        thresholds.append((positives * own + prior_weight * shared) / (positives + prior_weight))
    return thresholds


def calibrate(spec: ModelSpec, logits: Logits, targets: Targets) -> ModelSpec:
    """The spec with temperatures and thresholds fitted on validation logits and targets."""
    temperatures = fit_temperatures(logits, targets)
    arrays = probabilities(logits, temperatures)
    emotions, aspects = targets.emotions_mask > 0, targets.aspects_mask > 0
    for_emotions = choose_thresholds(arrays.emotions[emotions], targets.emotions[emotions] > 0)
    mentioned = 1.0 - arrays.aspects[aspects, :, 0]
    for_mentions = choose_thresholds(mentioned, targets.aspects[aspects, :, 0] > 0)
    return spec.model_copy(
        update={
            "temperatures": temperatures,
            "emotion_thresholds": dict(zip(EMOTIONS, for_emotions, strict=True)),
            "mention_thresholds": dict(zip(ASPECTS, for_mentions, strict=True)),
        }
    )
