"""Logits to the contract's predictions: calibrated probabilities, thresholds, labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.contract import (
    ASPECT_STATES,
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    AspectPrediction,
    AspectState,
    EmotionsPrediction,
    IntensityPrediction,
    Prediction,
    SentimentPrediction,
)
from data.errors import EngineError
from serving.logits import Logits
from serving.model_folder import ModelSpec, Temperatures

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class ProbabilityArrays:
    """Calibrated probabilities of ``n`` texts: the same as predictions, as arrays.

    Attributes:
        sentiment: (n, 3) over ``contract.SENTIMENTS``.
        intensity: (n, 5) over ``contract.INTENSITIES``.
        emotions: (n, 8), one for each of ``contract.EMOTIONS``, independent of one another.
        aspects: (n, 6, 5), per aspect over ``contract.ASPECT_STATES``.
    """

    sentiment: Probabilities
    intensity: Probabilities
    emotions: Probabilities
    aspects: Probabilities


def _sigmoid(values: NDArray[np.float64]) -> Probabilities:
    return 0.5 * (1.0 + np.tanh(0.5 * values))


def _softmax(values: NDArray[np.float64]) -> Probabilities:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def probabilities(logits: Logits, temperatures: Temperatures) -> ProbabilityArrays:
    """Calibrated probabilities of each head.

    Raises:
        EngineError: a logit is not finite.
    """
    if not np.isfinite(logits.flat()).all():
        raise EngineError(
            "the engine returned NaN or infinite logits; the model file is damaged or its "
            "precision overflows: serve the fp32 export and quantise again"
        )
    above = _sigmoid(logits.intensity.astype(np.float64) / temperatures.intensity)
    edges = np.concatenate([np.ones((len(above), 1)), above, np.zeros((len(above), 1))], axis=1)
    mentioned, positive, negative = np.moveaxis(
        _sigmoid(logits.aspects.astype(np.float64) / temperatures.aspects), -1, 0
    )
    states = np.stack(
        [
            1.0 - mentioned,
            mentioned * negative * (1.0 - positive),
            mentioned * (1.0 - positive) * (1.0 - negative),
            mentioned * positive * (1.0 - negative),
            mentioned * positive * negative,
        ],
        axis=-1,
    )
    return ProbabilityArrays(
        sentiment=_softmax(logits.sentiment.astype(np.float64) / temperatures.sentiment),
        intensity=np.clip(edges[:, :-1] - edges[:, 1:], 0.0, 1.0),
        emotions=_sigmoid(logits.emotions.astype(np.float64) / temperatures.emotions),
        aspects=states,
    )


def aspect_label(states: Probabilities, threshold: float) -> AspectState:
    """The state of an aspect from its (5,) probabilities: absent below the threshold."""
    if 1.0 - states[0] < threshold:
        return "absent"
    return ASPECT_STATES[1 + int(states[1:].argmax())]


def to_predictions(
    arrays: ProbabilityArrays, windows: NDArray[np.int64], spec: ModelSpec
) -> list[Prediction]:
    """The contract's predictions, one per text; labels are read through the ``id2…`` maps."""
    values = np.asarray([spec.id2intensity[i] for i in range(len(INTENSITIES))], dtype=np.float64)
    answers = []
    for row in range(len(arrays.sentiment)):
        sentiment, intensity = arrays.sentiment[row], arrays.intensity[row]
        scores = dict(zip(EMOTIONS, arrays.emotions[row].tolist(), strict=True))
        answers.append(
            Prediction(
                sentiment=SentimentPrediction(
                    label=spec.id2sentiment[int(sentiment.argmax())],
                    probabilities={
                        spec.id2sentiment[i]: p for i, p in enumerate(sentiment.tolist())
                    },
                ),
                intensity=IntensityPrediction(
                    label=spec.id2intensity[int(intensity.argmax())],
                    expected=float(np.clip(intensity @ values, -2.0, 2.0)),
                    probabilities={
                        spec.id2intensity[i]: p for i, p in enumerate(intensity.tolist())
                    },
                ),
                emotions=EmotionsPrediction(
                    labels=tuple(e for e in EMOTIONS if scores[e] >= spec.emotion_thresholds[e]),
                    scores=scores,
                ),
                aspects={
                    aspect: AspectPrediction(
                        label=aspect_label(states, spec.mention_thresholds[aspect]),
                        probabilities=dict(zip(ASPECT_STATES, states.tolist(), strict=True)),
                    )
                    for aspect, states in zip(ASPECTS, arrays.aspects[row], strict=True)
                },
                windows=int(windows[row]),
            )
        )
    return answers
