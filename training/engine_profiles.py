"""Which shapes a TensorRT engine is optimised for, from the lengths that really come."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import SettingsError
from serving.engines.plan_folder import Profile

MULTIPLE: Final = 8
"""Of a profile's tokens: what half-precision tiles of tensor cores are a multiple of."""
MOST_LENGTHS: Final = 8
"""Each length costs a build of all kernels and a context's memory, twice."""


class ChosenProfiles(NamedTuple):
    """Profiles and what they waste.

    Attributes:
        profiles: shortest first; of each length one for a few rows, and one for many.
        padding: padded tokens over real ones, every text padded to its profile's length.
    """

    profiles: tuple[Profile, ...]
    padding: float


def count_lengths(lengths: Iterable[int]) -> dict[int, float]:
    """Tokens → share of the texts that are so long."""
    counts = Counter(lengths)
    total = counts.total()
    return {length: count / total for length, count in sorted(counts.items())}


def choose_profiles(
    shares: Mapping[int, float],
    *,
    max_tokens: int,
    batch_tokens: int = 8192,
    max_rows: int = 256,
    few_rows: int = 4,
    max_padding: float = 1.25,
) -> ChosenProfiles:
    """Take as few lengths as keep the padding within a bound, and rows that fill a budget.

    Args:
        shares: tokens → share of the texts that are so long; they need not sum to 1.
        max_tokens: of the longest window that must be answered, whether any came or not.
        batch_tokens: padded tokens of the largest batch.
        max_rows: of any batch.
        few_rows: of the profile beside it whose kernels are chosen for small batches.
        max_padding: padded over real tokens, at most.

    Raises:
        SettingsError: no lengths came, one is longer than a window, or no ``MOST_LENGTHS``
            lengths keep to the bound.
    """
    counted = {length: share for length, share in shares.items() if share > 0}
    if not counted or min(counted) < 1 or max(counted) > max_tokens:
        raise SettingsError(
            f"shares={dict(shares)!r} must be of lengths between 1 and max_tokens={max_tokens!r}; "
            "count the windows of real texts"
        )
    if max_padding <= 1:
        raise SettingsError(f"max_padding={max_padding!r} is not above 1; try 1.25")
    ends = _ends(max_tokens)
    lengths, padding = _fewest_lengths(counted, ends, max_padding)
    profiles = []
    for tokens in lengths:
        many = max(1, min(max_rows, batch_tokens // tokens))
        many -= many % MULTIPLE if many > MULTIPLE else 0
        profiles += [
            Profile(batch=rows, tokens=tokens) for rows in sorted({min(few_rows, many), many})
        ]
    return ChosenProfiles(tuple(profiles), padding)


def _ends(max_tokens: int) -> list[int]:
    """Lengths that a profile may have: multiples, and the longest window itself."""
    # Not rounded up: a model has no position beyond its longest window.
    return [*range(MULTIPLE, max_tokens, MULTIPLE), max_tokens]


def _fewest_lengths(
    counted: Mapping[int, float], ends: Sequence[int], max_padding: float
) -> tuple[list[int], float]:
    edges = np.asarray(ends)
    place = np.searchsorted(edges, list(counted))
    weights = np.asarray(list(counted.values()), dtype=np.float64)
    share = np.bincount(place, weights=weights, minlength=len(edges)).astype(np.float64)
    real = sum(length * weight for length, weight in counted.items())
    best, chosen = float("inf"), [int(edges[-1])]
    for count, (padded, lengths) in enumerate(_splits(edges, share), start=1):
        best, chosen = padded / real, lengths
        if best <= max_padding or count == len(edges):
            break
    if best > max_padding:
        raise SettingsError(
            f"{len(chosen)} lengths {chosen!r} pad {best:.3f} × the real tokens, and "
            f"max_padding={max_padding!r}; allow more padding"
        )
    return chosen, best


def _splits(
    edges: NDArray[np.int64], share: NDArray[np.float64]
) -> Iterable[tuple[float, list[int]]]:
    """For 1, 2, … lengths: the least padded tokens of a text, and the lengths that give them."""
    total = np.concatenate([[0.0], np.cumsum(share)])
    # cost[i, j]: texts of edges i … j-1 padded to edge j-1
    cost = np.where(
        np.arange(len(edges) + 1)[:, None] < np.arange(len(edges) + 1)[None, :],
        (total[None, :] - total[:, None]) * np.concatenate([[0], edges])[None, :],
        np.inf,
    )
    least = cost[0]
    ways = [np.zeros(len(edges) + 1, dtype=np.int64)]
    for _ in range(MOST_LENGTHS):
        yield float(least[-1]), _lengths(edges, ways)
        through = least[:, None] + cost
        ways.append(through.argmin(axis=0))
        least = through.min(axis=0)


def _lengths(edges: NDArray[np.int64], ways: Sequence[NDArray[np.int64]]) -> list[int]:
    end, lengths = len(edges), []
    for way in reversed(ways):
        lengths.append(int(edges[end - 1]))
        end = int(way[end])
    return lengths[::-1]
