"""A review's text to clauses: the verbatim parts that a language model can point at.

A model that copies evidence letter by letter may copy it wrong; one that names a numbered clause
cannot. Where a text is cut decides only how finely it can be cited: between two clauses stands
nothing but blanks, so nothing is lost by an odd cut.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Final

LEAST_CHARACTERS: Final = 6
"""A shorter piece goes with its neighbour: alone it says too little to be cited."""
LONGEST_CHARACTERS: Final = 120
"""A longer clause is cut at a space, so that a span stays readable; well below the contract's."""

# After the end of a sentence, laughter or tears, a comma, or a connective ending before a space.
# 에서, 최고 and their like only look like endings.
_BORDER: Final = re.compile(
    r"(?<=[.!?~…\n,;])\s+"
    r"|(?<=[ㅋㅎㅠㅜ^])\s+(?=[^\sㅋㅎㅠㅜ^])"
    r"|(?<=[가-힣](?:지만|는데|은데|인데|한데|던데|면서|니까|다가|거나|해서|아서|어서|라서|여서))\s+"
    r"|(?<=[가-힣](?:하고|이고|있고|없고|않고|좋고|했고|났고|됐고|었고|았고))\s+"
    r"|\n+"
)


@dataclass(frozen=True)
class Clause:
    """A verbatim part of a text: ``text[start:end]``, in code points, no blank at either end."""

    start: int
    end: int
    text: str


def split_clauses(text: str) -> list[Clause]:
    """The clauses of a text, in order; a blank text has none, every other at least one."""
    borders = [0, *(match.end() for match in _BORDER.finditer(text)), len(text)]
    pieces: list[tuple[int, int]] = []
    for start, end in pairwise(borders):
        short = _length(text, start, end) < LEAST_CHARACTERS
        if pieces and (short or _length(text, *pieces[-1]) < LEAST_CHARACTERS):
            pieces[-1] = (pieces[-1][0], end)
        else:
            pieces.append((start, end))
    return [
        _clause(text, start, end)
        for piece in pieces
        for start, end in _cut(text, *piece)
        if text[start:end].strip()
    ]


def overlapping(clauses: Sequence[Clause], start: int, end: int) -> list[int]:
    """Indices of the clauses that hold ``[start, end)``: those it covers by half, or the most of.

    Args:
        clauses: of one text, in order, at least one.
        start: of a span in that text, in code points.
        end: of the span.
    """
    shared = [min(each.end, end) - max(each.start, start) for each in clauses]
    held = [
        index
        for index, (clause, common) in enumerate(zip(clauses, shared, strict=True))
        if common * 2 >= clause.end - clause.start
    ]
    return held or [max(range(len(clauses)), key=shared.__getitem__)]


def _length(text: str, start: int, end: int) -> int:
    return len(text[start:end].strip())


def _cut(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """A piece cut into parts that are not too long, of like size, at spaces where there are any."""
    cuts = [start]
    while (left := end - cuts[-1]) > LONGEST_CHARACTERS:
        limit = cuts[-1] + ceil(left / ceil(left / LONGEST_CHARACTERS))
        space = text.rfind(" ", cuts[-1] + LEAST_CHARACTERS, limit)
        cuts.append(limit if space < 0 else space + 1)
    return list(pairwise([*cuts, end]))


def _clause(text: str, start: int, end: int) -> Clause:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return Clause(start, start + len(part.strip()), part.strip())
