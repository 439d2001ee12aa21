"""Near-duplicates: texts that share nearly all their character 3-grams.

MinHash with locality-sensitive hashing proposes pairs, and the exact Jaccard of the 3-grams
decides, so a group never holds a chance resemblance. With 16 bands of 6 rows a pair at Jaccard
0.8 is proposed with probability 0.99, one at 0.5 with 0.22. Whether a pair is proposed depends on
its two texts alone, so a later check over other rows finds the same pairs.

Source: datasketch's MinHashLSH; Leskovec et al., Mining of Massive Datasets, section 3.4.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from datasketch import MinHash, MinHashLSH

from data.text import grams, jaccard

BANDS: Final = 16
ROWS: Final = 6
LOWEST_THRESHOLD: Final = 0.7
"""Below it the bands above miss too many pairs."""


@dataclass(frozen=True)
class Pair:
    """Positions of two texts, the earlier first, and how alike they are (Jaccard, 0 to 1)."""

    first: int
    second: int
    similarity: float


def near_duplicate_pairs(texts: Sequence[str], threshold: float) -> list[Pair]:
    """Pairs that tie each text to those before it that are as alike as ``threshold`` or more.

    Equal 3-gram sets are tied to their first text only, so a text that stands a thousand times
    gives a thousand pairs and not half a million.
    """
    if not LOWEST_THRESHOLD <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold!r}, expected {LOWEST_THRESHOLD} to 1")
    firsts: dict[frozenset[str], int] = {}
    pairs: list[Pair] = []
    for position, text in enumerate(texts):
        known = firsts.setdefault(grams(text), position)
        if known != position:
            pairs.append(Pair(known, position, 1.0))
    if threshold < 1.0:  # texts of different 3-grams are never wholly alike
        pairs.extend(_similar_pairs(firsts, threshold))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _similar_pairs(firsts: dict[frozenset[str], int], threshold: float) -> list[Pair]:
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    sets = list(firsts)
    encoded = ([gram.encode() for gram in sorted(found)] for found in sets)
    pairs: list[Pair] = []
    for number, sketch in enumerate(
        MinHash.generator(encoded, num_perm=BANDS * ROWS, seed=1, hashfunc=zlib.crc32)
    ):
        for other in index.query(sketch):
            similarity = jaccard(sets[other], sets[number])
            if similarity >= threshold:
                pairs.append(Pair(firsts[sets[other]], firsts[sets[number]], round(similarity, 4)))
        index.insert(number, sketch, check_duplication=False)
    return pairs


class Unions:
    """Sets of positions that grow together (union-find); a set is named by its earliest member."""

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def find(self, member: int) -> int:
        """The earliest member of a member's set."""
        root = member
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[member] != root:
            self._parents[member], member = root, self._parents[member]
        return root

    def union(self, one: int, other: int) -> None:
        """Make two members' sets one."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parents[second] = first


def groups_of(pairs: Sequence[Pair], size: int) -> list[list[int]]:
    """Positions tied by pairs, as groups of two or more, in order."""
    unions = Unions(size)
    for pair in pairs:
        unions.union(pair.first, pair.second)
    groups: dict[int, list[int]] = {}
    for position in sorted({p for pair in pairs for p in (pair.first, pair.second)}):
        groups.setdefault(unions.find(position), []).append(position)
    return list(groups.values())
