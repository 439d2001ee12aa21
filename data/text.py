"""Forms of a text that two modules compare by: normalised text, and its character 3-grams."""

import unicodedata
from typing import Final

GRAM: Final = 3


def normalised(text: str) -> str:
    """Text without what does not make it another: width, case, runs of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def grams(text: str) -> frozenset[str]:
    """Character 3-grams without spaces (Korean spacing varies); of a shorter text, the text."""
    compact = normalised(text).replace(" ", "")
    if len(compact) <= GRAM:
        return frozenset((compact,))
    return frozenset(compact[i : i + GRAM] for i in range(len(compact) - GRAM + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared grams over all grams, 0 to 1."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
