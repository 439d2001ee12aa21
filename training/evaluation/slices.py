"""Parts of the data that a model may fail on while its average looks well."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from data.contract import ASPECTS, SENTIMENTS
from data.errors import MetricError
from training.evaluation import weighted
from training.evaluation.gold import Answers, Gold, Mask
from training.evaluation.intervals import Resamples, Values, interval, point, spread

SHORT_CHARACTERS: Final = 20
LONG_CHARACTERS: Final = 140
LEAST_ROWS: Final = 20
"""Slices with fewer rows are reported as too few, and nobody judges by them."""


@dataclass(frozen=True)
class Slice:
    """A part of the rows, and what counts as correct there.

    Attributes:
        task: "sentiment", or the aspect whose state is judged.
        mask: (n,) its rows among those that carry the label judged.
    """

    name: str
    task: Literal["sentiment", "aspects"]
    mask: Mask
    aspect: int | None = None

    def correct(self, gold: Gold, answers: Answers) -> Values:
        """(n,) 1 where the answer is right; outside the slice the value means nothing."""
        if self.aspect is None:
            return np.asarray(answers.sentiment == gold.sentiment, dtype=np.float64)
        same = answers.aspects[:, self.aspect] == gold.aspects[:, self.aspect]
        return np.asarray(same, dtype=np.float64)


def _marked(gold: Gold, *names: str) -> Mask:
    return np.asarray([bool(set(names) & set(marks)) for marks in gold.phenomena], dtype=np.bool_)


TEXT_SLICES: Final[dict[str, Callable[[Gold], Mask]]] = {
    "length_short": lambda gold: np.asarray(gold.characters <= SHORT_CHARACTERS),
    "length_medium": lambda gold: np.asarray(
        (gold.characters > SHORT_CHARACTERS) & (gold.characters <= LONG_CHARACTERS)
    ),
    "length_long": lambda gold: np.asarray(gold.characters > LONG_CHARACTERS),
    "slang_or_emoji": lambda gold: _marked(gold, "slang", "emoji"),
    "negation": lambda gold: _marked(gold, "negation"),
    "mixed": lambda gold: _marked(gold, "mixed"),
    "sarcasm": lambda gold: _marked(gold, "sarcasm"),
    "typo_or_spacing": lambda gold: _marked(gold, "typo", "spacing"),
    "delivery": lambda gold: _marked(gold, "delivery"),
}
"""Sentiment is judged on these."""

SLICE_NAMES: Final = (*TEXT_SLICES, *(f"aspect_{aspect}" for aspect in ASPECTS))


def slices_of(gold: Gold) -> list[Slice]:
    """Every slice, also the empty ones, in the order of ``SLICE_NAMES``."""
    labelled = gold.labelled("sentiment")
    texts = [Slice(name, "sentiment", labelled & pick(gold)) for name, pick in TEXT_SLICES.items()]
    return texts + [
        Slice(f"aspect_{aspect}", "aspects", np.asarray(gold.aspects[:, index] > 0), index)
        for index, aspect in enumerate(ASPECTS)
    ]


def measure_slice(
    part: Slice,
    gold: Gold,
    answers: Answers,
    resamples: Resamples,
    *,
    least_rows: int = LEAST_ROWS,
) -> dict[str, Any]:
    """Accuracy of one model on one slice, with macro-F1 of sentiment where it can be computed.

    Returns:
        ``{"accuracy", "low", "high", "n", "judged"}``; too few rows have null figures and a
        ``reason``.
    """
    count = int(part.mask.sum())
    answer: dict[str, Any] = {
        "accuracy": None,
        "low": None,
        "high": None,
        "macro_f1": None,
        "n": count,
        "judged": False,
    }
    if part.task not in answers.tasks:
        return answer | {"reason": f"not answered: no {part.task} labels to learn from"}
    if count < least_rows:
        return answer | {"reason": f"too few: {count} rows, {least_rows} needed"}
    statistic = weighted.weighted_mean(part.correct(gold, answers), part.mask)
    try:
        low, high = interval(spread(resamples, statistic), units=resamples.units_in(part.mask))
    except MetricError as error:
        return answer | {"reason": str(error)}
    if part.task == "sentiment":
        inside = np.where(part.mask, gold.sentiment, -1)
        f1 = weighted.macro_f1(inside, answers.sentiment, len(SENTIMENTS))
        if len(np.unique(gold.sentiment[part.mask])) > 1:
            answer["macro_f1"] = point(len(gold), f1)
    return answer | {
        "accuracy": point(len(gold), statistic),
        "low": low,
        "high": high,
        "judged": True,
    }
