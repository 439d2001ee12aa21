"""How well two annotators agree, per task, before adjudication (Krippendorff's alpha).

Only the first two annotations of a review count: a third is written with both in view. Sentiment
and each aspect are nominal, intensity is ordinal, emotions and aspects are the mean over their
categories of the alpha of each. ``None`` stands where nothing can be said: nobody labelled twice,
or everybody always gave one and the same answer.

Source: K. Krippendorff, Content Analysis (2004), by the library ``krippendorff``.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Final, Literal

import krippendorff
import numpy as np

from data.contract import (
    ASPECT_STATES,
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    SENTIMENTS,
    Aspect,
    Emotion,
    Label,
)

PAIR: Final = 2
Pair = tuple[Label, Label]


def first_pairs(labels: Iterable[Sequence[Label]]) -> list[Pair]:
    """The two first-pass labels of each review that has them."""
    return [(found[0], found[1]) for found in labels if len(found) >= PAIR]


def agreement(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Alpha per task; 1 is perfect, 0 is chance, below 0 is worse than chance."""
    return {
        "sentiment": _alpha(pairs, lambda label: _index(SENTIMENTS, label.sentiment), 3, "nominal"),
        "intensity": _alpha(
            pairs, lambda label: _index(INTENSITIES, label.intensity), 5, "ordinal"
        ),
        "emotions": _mean([_alpha(pairs, _has_emotion(e), 2, "nominal") for e in EMOTIONS]),
        "aspects": _mean([_alpha(pairs, _aspect_state(a), 5, "nominal") for a in ASPECTS]),
    }


def _index(values: Sequence[object], value: object) -> int | None:
    return None if value is None else values.index(value)


def _has_emotion(emotion: Emotion) -> Callable[[Label], int | None]:
    return lambda label: None if label.emotions is None else int(emotion in label.emotions)


def _aspect_state(aspect: Aspect) -> Callable[[Label], int | None]:
    def state(label: Label) -> int | None:
        if label.aspects is None:
            return None
        return ASPECT_STATES.index(label.aspects.get(aspect, "absent"))

    return state


def _alpha(
    pairs: Sequence[Pair],
    read: Callable[[Label], int | None],
    values: int,
    level: Literal["nominal", "ordinal"],
) -> float | None:
    counts = np.zeros((len(pairs), values), dtype=np.int64)
    for row, pair in enumerate(pairs):
        codes = [code for code in map(read, pair) if code is not None]
        if len(codes) == PAIR:
            np.add.at(counts[row], codes, 1)
    if (counts.sum(axis=0) > 0).sum() < PAIR:
        return None
    return round(
        float(
            krippendorff.alpha(
                value_counts=counts, value_domain=np.arange(values), level_of_measurement=level
            )
        ),
        4,
    )


def _mean(alphas: Sequence[float | None]) -> float | None:
    known = [alpha for alpha in alphas if alpha is not None]
    return round(fmean(known), 4) if known else None
