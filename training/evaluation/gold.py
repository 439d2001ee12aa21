"""Gold labels and answers as arrays in the taxonomy's order, one row per review."""

from collections.abc import Mapping, Sequence
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
from serving.predictions import ProbabilityArrays

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
UNLABELLED: Final = -1
DECIMALS: Final = 8
"""Probabilities are kept to this many decimals, so that the gate reads what was measured."""


@dataclass(frozen=True)
class Gold:
    """Gold labels of ``n`` reviews. ``UNLABELLED`` (-1) marks a task that was not labelled.

    Attributes:
        ids: review ids.
        sentiment: (n,) index into ``SENTIMENTS``.
        intensity: (n,) index into ``INTENSITIES``.
        emotions: (n, 8) 0 or 1.
        aspects: (n, 6) index into ``ASPECT_STATES``.
        restaurants: restaurant id of each review, None where there is none.
        phenomena: what the annotators marked, per review.
        characters: (n,) length of each text in code points.
    """

    ids: tuple[str, ...]
    sentiment: Integers
    intensity: Integers
    emotions: Integers
    aspects: Integers
    restaurants: tuple[str | None, ...]
    phenomena: tuple[tuple[str, ...], ...]
    characters: Integers

    def __len__(self) -> int:
        return len(self.ids)

    def labelled(self, task: str) -> Mask:
        """(n,) which rows carry a label for the task."""
        values: Integers = getattr(self, task)
        return np.asarray(values.reshape(len(self), -1)[:, 0] != UNLABELLED)


@dataclass(frozen=True)
class Answers:
    """What one model or baseline says of the same ``n`` reviews.

    Attributes:
        probabilities: columns in the contract's order, whatever order the model's heads have.
        thresholds: (8,) a score at or above it counts as that emotion.
        mention_thresholds: (6,) an aspect whose 1 - P(absent) reaches it counts as spoken of.
        tasks: what this model answers; a baseline fitted without labels of a task leaves it out.
    """

    probabilities: ProbabilityArrays
    thresholds: NDArray[np.float64]
    tasks: frozenset[str] = frozenset(TASKS)
    mention_thresholds: NDArray[np.float64] = field(
        default_factory=lambda: np.full(len(ASPECTS), 0.5)
    )

    @property
    def sentiment(self) -> Integers:
        """(n,) likeliest sentiment."""
        return np.asarray(self.probabilities.sentiment.argmax(axis=1), dtype=np.int64)

    @property
    def intensity(self) -> Integers:
        """(n,) likeliest step, as an index into ``INTENSITIES``."""
        return np.asarray(self.probabilities.intensity.argmax(axis=1), dtype=np.int64)

    @property
    def emotions(self) -> Mask:
        """(n, 8) whether each score reaches its threshold."""
        return np.asarray(self.probabilities.emotions >= self.thresholds)

    @property
    def aspects(self) -> Integers:
        """(n, 6) state of each aspect: absent below its threshold, else the likeliest other."""
        states = self.probabilities.aspects
        spoken_of = 1.0 - states[:, :, 0] >= self.mention_thresholds
        return np.where(spoken_of, 1 + states[:, :, 1:].argmax(axis=2), 0).astype(np.int64)


def gold_arrays(reviews: Sequence[LabelledReview]) -> Gold:
    """Labels as arrays."""
    count = len(reviews)
    sentiment = np.full(count, UNLABELLED, dtype=np.int64)
    intensity = np.full(count, UNLABELLED, dtype=np.int64)
    emotions = np.full((count, len(EMOTIONS)), UNLABELLED, dtype=np.int64)
    aspects = np.full((count, len(ASPECTS)), UNLABELLED, dtype=np.int64)
    for row, labelled in enumerate(reviews):
        label = labelled.label
        if label.sentiment is not None:
            sentiment[row] = SENTIMENTS.index(label.sentiment)
        if label.intensity is not None:
            intensity[row] = INTENSITIES.index(label.intensity)
        if label.emotions is not None:
            emotions[row] = [emotion in label.emotions for emotion in EMOTIONS]
        if label.aspects is not None:
            aspects[row] = [ASPECT_STATES.index(label.aspects.get(a, "absent")) for a in ASPECTS]
    return Gold(
        ids=tuple(r.review.review_id for r in reviews),
        sentiment=sentiment,
        intensity=intensity,
        emotions=emotions,
        aspects=aspects,
        restaurants=tuple(r.review.restaurant_id for r in reviews),
        phenomena=tuple(tuple(r.label.phenomena) for r in reviews),
        characters=np.asarray([len(r.review.text) for r in reviews], dtype=np.int64),
    )


def in_contract_order(
    arrays: ProbabilityArrays, id2sentiment: Mapping[int, str], id2intensity: Mapping[int, int]
) -> ProbabilityArrays:
    """Columns as the contract orders them: a head's numbers mean what its ``id2…`` map says."""
    sentiment = np.empty_like(arrays.sentiment)
    for column, name in id2sentiment.items():
        sentiment[:, SENTIMENTS.index(name)] = arrays.sentiment[:, column]
    intensity = np.empty_like(arrays.intensity)
    for column, step in id2intensity.items():
        intensity[:, INTENSITIES.index(step)] = arrays.intensity[:, column]
    return ProbabilityArrays(
        sentiment=sentiment, intensity=intensity, emotions=arrays.emotions, aspects=arrays.aspects
    )


def rounded(arrays: ProbabilityArrays) -> ProbabilityArrays:
    """Probabilities as predictions.jsonl keeps them."""
    return ProbabilityArrays(
        sentiment=arrays.sentiment.round(DECIMALS),
        intensity=arrays.intensity.round(DECIMALS),
        emotions=arrays.emotions.round(DECIMALS),
        aspects=arrays.aspects.round(DECIMALS),
    )
