"""What a model must be better than: the majority, a word list, and TF-IDF with linear models.

Each answers with the same arrays as a model, so that every figure stands beside theirs. Only the
training part is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.contract import (
    ASPECT_STATES,
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    SENTIMENTS,
    TASKS,
    LabelledReview,
)
from data.errors import DataUnfitError
from serving.predictions import ProbabilityArrays
from training.evaluation.gold import Gold, gold_arrays
from training.evaluation.lexicon import EMOTION_WORDS, aspect_scores, text_score
from training.evaluation.tfidf import fit_tfidf

Predictor = Callable[[Sequence[str]], ProbabilityArrays]
"""Texts to probabilities, columns in the contract's order."""

NEUTRAL_BAND: Final = 0.45
"""Scores of the lexicon within ± this are neutral: half of a mild word."""
STRONG: Final = 1.75
"""From here on the lexicon says the outermost step."""


@dataclass(frozen=True)
class Baseline:
    """A predictor that stands beside the models.

    Attributes:
        tasks: what it answers; a task without labels in the training part is left out.
        facts: what was chosen while fitting, for the report.
    """

    predict: Predictor
    tasks: frozenset[str]
    thresholds: NDArray[np.float64] = field(default_factory=lambda: np.full(len(EMOTIONS), 0.5))
    facts: dict[str, object] = field(default_factory=dict)


def labelled_tasks(gold: Gold) -> frozenset[str]:
    """Tasks that at least one row carries a label for."""
    return frozenset(task for task in TASKS if gold.labelled(task).any())


def _shares(values: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    known = values[values >= 0]
    counts = np.bincount(known, minlength=classes).astype(np.float64)
    return counts / counts.sum() if len(known) else np.full(classes, 1.0 / classes)


def majority(train: Gold) -> Baseline:
    """Says the shares of the training part, whatever the text."""
    sentiment = _shares(train.sentiment, len(SENTIMENTS))
    intensity = _shares(train.intensity, len(INTENSITIES))
    emotions = np.asarray([_shares(column, 2)[1] for column in train.emotions.T])
    aspects = np.asarray([_shares(column, len(ASPECT_STATES)) for column in train.aspects.T])

    def predict(texts: Sequence[str]) -> ProbabilityArrays:
        count = len(texts)
        return ProbabilityArrays(
            sentiment=np.tile(sentiment, (count, 1)),
            intensity=np.tile(intensity, (count, 1)),
            emotions=np.tile(emotions, (count, 1)),
            aspects=np.tile(aspects, (count, 1, 1)),
        )

    return Baseline(predict=predict, tasks=labelled_tasks(train))


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def _states_of(scores: Sequence[float]) -> NDArray[np.float64]:
    """Probabilities over ``ASPECT_STATES`` of an aspect that these clauses speak of."""
    answer = np.full(len(ASPECT_STATES), 0.05)
    good, bad = max(scores) > NEUTRAL_BAND, min(scores) < -NEUTRAL_BAND
    state = {
        (True, True): "mixed",
        (True, False): "positive",
        (False, True): "negative",
        (False, False): "neutral",
    }[good, bad]
    answer[[ASPECT_STATES.index(name) for name in ASPECT_STATES if name == state]] = 0.8
    return answer


def predict_by_lexicon(texts: Sequence[str]) -> ProbabilityArrays:
    """Word lists and rules for every task; reads no training data."""
    raw = np.asarray([text_score(text) for text in texts], dtype=np.float64).reshape(-1, 1)
    # Long reviews pile up words; beyond a strong word and a mild one nothing changes.
    scores = np.clip(raw, -3.0, 3.0)
    sentiment = _softmax(
        2.0 * np.concatenate([-scores - NEUTRAL_BAND, 0.0 * scores, scores - NEUTRAL_BAND], axis=1)
    )
    step = np.sign(scores) * np.where(
        np.abs(scores) < NEUTRAL_BAND, 0.0, np.where(np.abs(scores) < STRONG, 1.0, 2.0)
    )
    intensity = _softmax(-1.5 * np.abs(np.asarray(INTENSITIES, dtype=np.float64) - step))
    emotions = np.asarray(
        [
            [0.8 if any(w in text.lower() for w in EMOTION_WORDS[e]) else 0.1 for e in EMOTIONS]
            for text in texts
        ]
    ).reshape(-1, len(EMOTIONS))
    aspects = np.zeros((len(texts), len(ASPECTS), len(ASPECT_STATES)))
    aspects[:, :] = np.asarray([0.8, *[0.05] * (len(ASPECT_STATES) - 1)])
    for row, text in enumerate(texts):
        for aspect, found in aspect_scores(text).items():
            aspects[row, ASPECTS.index(aspect)] = _states_of(found)
    return ProbabilityArrays(
        sentiment=sentiment, intensity=intensity, emotions=emotions, aspects=aspects
    )


def fit_baselines(train: Sequence[LabelledReview], *, seed: int = 0) -> dict[str, Baseline]:
    """The three baselines by name: majority, lexicon, tfidf.

    Args:
        train: the training part.
        seed: of TF-IDF's cross-validation.

    Raises:
        DataUnfitError: the training part is empty.
    """
    if not train:
        raise DataUnfitError("the training part is empty; split a larger snapshot")
    gold = gold_arrays(train)
    texts = [row.review.text for row in train]
    tfidf = fit_tfidf(texts, gold, seed=seed)
    return {
        "majority": majority(gold),
        "lexicon": Baseline(predict=predict_by_lexicon, tasks=frozenset(TASKS)),
        "tfidf": Baseline(predict=tfidf.predict, tasks=labelled_tasks(gold), facts=tfidf.facts),
    }
