"""How near one Korean text comes to another: ROUGE over morphemes, and chrF.

Only the values of fields are compared. `rouge_score` keeps nothing but ``[a-z0-9]``, so identical
Korean sentences scored 0 with it; and an empty JSON skeleton, compared as text with a JSON answer,
once scored 0.85. So text is cut into morphemes here, JSON is refused as a reference, and scores 0
where a model says it in a field.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np
import orjson
from scipy.optimize import linear_sum_assignment

from data.errors import MetricError

Score = Callable[[str, str], float]
"""(reference, said) to 0…1; 1 where they are the same."""
REMEMBERED: Final = 200_000
"""Pairs and texts whose result is kept: gold and baselines come again for every model."""
_KEPT_SYMBOLS: Final = ("SL", "SN", "SH")
"""Foreign words, numbers and hanja; all other signs are punctuation."""


@cache
def _analyser() -> Any:
    try:
        from kiwipiepy import Kiwi
    except ImportError as error:
        raise MetricError(
            f"ROUGE needs kiwipiepy, which cannot be imported: {error}; pip install kiwipiepy"
        ) from error
    # Proper names of several words take most of the loading, and reviews have few.
    return Kiwi(num_workers=1, load_multi_dict=False)


@cache
def _chrf() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise MetricError(
            f"chrF needs sacrebleu, which cannot be imported: {error}; pip install sacrebleu"
        ) from error
    return CHRF()


@lru_cache(maxsize=REMEMBERED)
def morphemes(text: str) -> tuple[str, ...]:
    """The forms of a text's morphemes, in order; punctuation is left out.

    Raises:
        MetricError: kiwipiepy is missing.
    """
    return tuple(
        token.form
        for token in _analyser().tokenize(text)
        if not token.tag.startswith("S") or token.tag in _KEPT_SYMBOLS
    )


@lru_cache(maxsize=REMEMBERED)
def rouge(reference: str, said: str, n: int) -> float:
    """F1 of the morphemes' n-grams; a reference shorter than n must be said whole.

    Raises:
        MetricError: the reference has no morpheme or is JSON, or kiwipiepy is missing.
    """
    gold, other = _both(reference, said)
    if len(gold) < n:
        return float(gold == other)
    grams, found = _grams(gold, n), _grams(other, n)
    return _f1((grams & found).total(), grams.total(), found.total())


@lru_cache(maxsize=REMEMBERED)
def rouge_l(reference: str, said: str) -> float:
    """F1 of the longest common subsequence of morphemes.

    Raises:
        MetricError: the reference has no morpheme or is JSON, or kiwipiepy is missing.
    """
    gold, other = _both(reference, said)
    row = [0] * (len(other) + 1)
    for mine in gold:
        before = row
        row = [0]
        for column, theirs in enumerate(other):
            same = before[column] + 1
            row.append(same if mine == theirs else max(row[column], before[column + 1]))
    return _f1(row[-1], len(gold), len(other))


@lru_cache(maxsize=REMEMBERED)
def chrf(reference: str, said: str) -> float:
    """F2 of character 1- to 6-grams (sacrebleu's chrF), as a share of 1.

    Raises:
        MetricError: the reference is blank or JSON, or sacrebleu is missing.
    """
    _refuse(reference, usable=bool(reference.strip()))
    if _is_json(said):
        return 0.0
    return float(_chrf().sentence_score(said, [reference]).score) / 100.0


SCORES: Final[dict[str, Score]] = {
    "rouge_1": lambda reference, said: rouge(reference, said, 1),
    "rouge_2": lambda reference, said: rouge(reference, said, 2),
    "rouge_l": rouge_l,
    "chrf": chrf,
}


def matched(score: Score, reference: Sequence[str], said: Sequence[str]) -> float:
    """F1 of two lists of texts, whatever their order: each text is paired with at most one.

    The pairing is the one with the highest sum of scores; texts left alone count against it.

    Raises:
        MetricError: there is no reference.
    """
    _refuse(reference, usable=bool(reference))
    if not said:
        return 0.0
    table = np.asarray([[score(gold, other) for other in said] for gold in reference])
    rows, columns = linear_sum_assignment(-table)
    return _f1(float(table[rows, columns].sum()), len(reference), len(said))


def _both(reference: str, said: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    gold = morphemes(reference)
    _refuse(reference, usable=bool(gold))
    return gold, () if _is_json(said) else morphemes(said)


def _grams(tokens: tuple[str, ...], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tokens[start : start + n] for start in range(len(tokens) - n + 1))


def _f1(common: float, gold: int, said: int) -> float:
    return 2.0 * common / (gold + said)


def _refuse(reference: str | Sequence[str], *, usable: bool) -> None:
    if not usable:
        raise MetricError(
            f"the reference {reference!r} is empty, so nothing can be compared with it; write the "
            "gold text, or leave the item out"
        )
    if isinstance(reference, str) and _is_json(reference):
        raise MetricError(
            f"the reference {reference[:60]!r} is JSON; score the values of its fields, or its "
            "signs would be scored"
        )


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        return isinstance(orjson.loads(text), dict | list)
    except orjson.JSONDecodeError:
        return False
