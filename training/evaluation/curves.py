"""Confusion matrices, ROC points and calibration bins: what the plots and the UI show."""

from typing import Any, Final

import numpy as np
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from data.contract import ASPECT_STATES, ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS
from training.evaluation.figures import CALIBRATION_BINS
from training.evaluation.gold import Answers, Gold

MOST_POINTS: Final = 200
NOT_ANSWERED: Final = {"reason": "not labelled, or not answered by this model"}


def _usable(gold: Gold, answers: Answers, task: str) -> Any:
    mask = gold.labelled(task)
    return mask if task in answers.tasks and mask.any() else None


def confusions(gold: Gold, answers: Answers) -> dict[str, Any]:
    """Counts of gold (rows) against predicted (columns): sentiment, intensity, aspect states."""
    answer: dict[str, Any] = {}
    for task, labels in (("sentiment", SENTIMENTS), ("intensity", INTENSITIES)):
        mask = _usable(gold, answers, task)
        if mask is None:
            answer[task] = NOT_ANSWERED
            continue
        matrix = confusion_matrix(
            getattr(gold, task)[mask],
            getattr(answers, task)[mask],
            labels=list(range(len(labels))),
        )
        answer[task] = {"labels": [str(name) for name in labels], "matrix": matrix.tolist()}
    mask = _usable(gold, answers, "aspects")
    states = list(range(len(ASPECT_STATES)))
    answer["aspects"] = (
        NOT_ANSWERED
        if mask is None
        else {
            aspect: {
                "labels": list(ASPECT_STATES),
                "matrix": confusion_matrix(
                    gold.aspects[mask, i], answers.aspects[mask, i], labels=states
                ).tolist(),
            }
            for i, aspect in enumerate(ASPECTS)
        }
    )
    return answer


def _roc(truth: Any, scores: Any) -> dict[str, Any]:
    if truth.min() == truth.max():
        return {"reason": "one class only"}
    fpr, tpr, thresholds = roc_curve(truth, scores)
    keep = np.unique(np.linspace(0, len(fpr) - 1, min(MOST_POINTS, len(fpr))).astype(int))
    return {
        "fpr": fpr[keep].tolist(),
        "tpr": tpr[keep].tolist(),
        # The first threshold is infinite by convention, which JSON has no number for.
        "thresholds": np.minimum(thresholds[keep], 1.0).tolist(),
        "auroc": float(roc_auc_score(truth, scores)),
    }


def roc_points(gold: Gold, answers: Answers) -> dict[str, Any]:
    """ROC points of each sentiment against the rest, and of each emotion."""
    answer: dict[str, Any] = {"sentiment": NOT_ANSWERED, "emotions": NOT_ANSWERED}
    mask = _usable(gold, answers, "sentiment")
    if mask is not None:
        answer["sentiment"] = {
            name: _roc(gold.sentiment[mask] == i, answers.probabilities.sentiment[mask, i])
            for i, name in enumerate(SENTIMENTS)
        }
    mask = _usable(gold, answers, "emotions")
    if mask is not None:
        answer["emotions"] = {
            name: _roc(gold.emotions[mask, i] == 1, answers.probabilities.emotions[mask, i])
            for i, name in enumerate(EMOTIONS)
        }
    return answer


def calibration_bins(gold: Gold, answers: Answers) -> list[dict[str, Any]]:
    """Rows, mean probability and accuracy of each bin of the likeliest sentiment."""
    mask = _usable(gold, answers, "sentiment")
    if mask is None:
        return []
    chances = answers.probabilities.sentiment[mask]
    confidence, correct = chances.max(axis=1), answers.sentiment[mask] == gold.sentiment[mask]
    index = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for number in range(CALIBRATION_BINS):
        inside = index == number
        bins.append(
            {
                "low": number / CALIBRATION_BINS,
                "high": (number + 1) / CALIBRATION_BINS,
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()) if inside.any() else None,
                "accuracy": float(correct[inside].mean()) if inside.any() else None,
            }
        )
    return bins
