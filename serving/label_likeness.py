"""How alike two classifiers' answers are to the same windows: in labels, and in probabilities.

No cosine of logits sees their scale, yet twice the logits are other probabilities.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.contract import ASPECTS, EMOTIONS, Prediction
from serving.engines.protocol import Outputs
from serving.logits import Logits
from serving.model_folder import ModelSpec
from serving.predictions import ProbabilityArrays, probabilities, to_predictions


@dataclass(frozen=True)
class LabelLikeness:
    """Of the head that is the least alike.

    Attributes:
        label_agreement: share of its labels that are the same.
        probability_shift: mean absolute difference of its probabilities.
    """

    label_agreement: float
    probability_shift: float


def label_likeness(one: Outputs, other: Outputs, spec: ModelSpec) -> LabelLikeness:
    """Compare answers window by window.

    Args:
        one: logits by head, as an engine answers.
        other: of another engine, for the same windows.
        spec: temperatures and thresholds that both are read with.

    Raises:
        EngineError: a logit is not finite.
    """
    first, second = (probabilities(Logits(**each), spec.temperatures) for each in (one, other))
    labels, others = _labels(first, spec), _labels(second, spec)
    shifts = [
        np.abs(getattr(first, head.name) - getattr(second, head.name)).mean()
        for head in fields(ProbabilityArrays)
    ]
    return LabelLikeness(
        label_agreement=min(float(np.mean(labels[head] == others[head])) for head in labels),
        probability_shift=float(max(shifts)),
    )


def _labels(arrays: ProbabilityArrays, spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """By head, (windows, labels)."""
    answers: list[Prediction] = to_predictions(arrays, np.ones(len(arrays.sentiment), int), spec)
    return {
        "sentiment": np.array([[each.sentiment.label] for each in answers]),
        "intensity": np.array([[each.intensity.label] for each in answers]),
        "emotions": np.array([[e in each.emotions.labels for e in EMOTIONS] for each in answers]),
        "aspects": np.array([[each.aspects[a].label for a in ASPECTS] for each in answers]),
    }
