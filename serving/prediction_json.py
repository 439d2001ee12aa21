"""Probabilities to the contract's predictions as JSON, without an object per review in between.

The same values and the same keys, in the same order, as ``to_predictions`` followed by pydantic:
tests hold the two against each other. Labels are found for the whole batch at once; a model's
logits are finite here, so nothing is left for pydantic to refuse.
"""

from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from data.contract import ASPECT_STATES, ASPECTS, CONTRACT_VERSION, EMOTIONS
from serving.model_folder import ModelSpec
from serving.predictions import ProbabilityArrays

_ABSENT: Final = 0


def prediction_json(
    arrays: ProbabilityArrays, windows: NDArray[np.int64], spec: ModelSpec
) -> list[bytes]:
    """One prediction per text, as the API sends it and the store keeps it.

    Args:
        arrays: calibrated probabilities, one row per text.
        windows: (n,), the windows that each text was read in.
        spec: of the model: the outputs' names, and thresholds.
    """
    columns = zip(
        _choices(arrays.sentiment, spec.id2sentiment),
        _intensities(arrays, spec),
        _emotions(arrays, spec),
        _aspects(arrays, spec),
        windows.tolist(),
        strict=True,
    )
    names = ("sentiment", "intensity", "emotions", "aspects", "windows")
    head = {"contract_version": CONTRACT_VERSION}
    return [orjson.dumps(head | dict(zip(names, row, strict=True))) for row in columns]


def _choices(values: NDArray[np.float64], names: dict[int, Any]) -> list[dict[str, Any]]:
    order = [names[column] for column in range(values.shape[1])]
    likeliest = values.argmax(axis=1).tolist()
    return [
        {"label": order[best], "probabilities": dict(zip(order, row, strict=True))}
        for best, row in zip(likeliest, values.tolist(), strict=True)
    ]


def _intensities(arrays: ProbabilityArrays, spec: ModelSpec) -> list[dict[str, Any]]:
    steps = [spec.id2intensity[column] for column in range(arrays.intensity.shape[1])]
    # Row by row, as ``to_predictions`` does: a product of whole matrices may add in another order.
    scale = np.asarray(steps, dtype=np.float64)
    expected = [float(np.clip(row @ scale, -2.0, 2.0)) for row in arrays.intensity]
    likeliest = arrays.intensity.argmax(axis=1).tolist()
    keys = [str(step) for step in steps]
    return [
        {
            "label": steps[best],
            "expected": value,
            "probabilities": dict(zip(keys, row, strict=True)),
        }
        for best, value, row in zip(likeliest, expected, arrays.intensity.tolist(), strict=True)
    ]


def _emotions(arrays: ProbabilityArrays, spec: ModelSpec) -> list[dict[str, Any]]:
    thresholds = np.asarray([spec.emotion_thresholds[emotion] for emotion in EMOTIONS])
    felt = (arrays.emotions >= thresholds).tolist()
    return [
        {
            "labels": [emotion for emotion, there in zip(EMOTIONS, row, strict=True) if there],
            "scores": dict(zip(EMOTIONS, scores, strict=True)),
        }
        for row, scores in zip(felt, arrays.emotions.tolist(), strict=True)
    ]


def _aspects(arrays: ProbabilityArrays, spec: ModelSpec) -> list[dict[str, Any]]:
    thresholds = np.asarray([spec.mention_thresholds[aspect] for aspect in ASPECTS])
    mentioned = ~(1.0 - arrays.aspects[:, :, _ABSENT] < thresholds)
    states = np.where(mentioned, 1 + arrays.aspects[:, :, 1:].argmax(axis=2), _ABSENT).tolist()
    return [
        {
            aspect: {
                "label": ASPECT_STATES[state],
                "probabilities": dict(zip(ASPECT_STATES, values, strict=True)),
            }
            for aspect, state, values in zip(ASPECTS, row, scores, strict=True)
        }
        for row, scores in zip(states, arrays.aspects.tolist(), strict=True)
    ]
