"""What a batch is made of, padding included: what its cost is reckoned from."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Shape(NamedTuple):
    """What a batch is made of.

    Attributes:
        rows: windows.
        longest: tokens of a row, padding included.
        tokens: real ones of all rows.
        squares: sum over the rows of their real tokens squared.
    """

    rows: int
    longest: int
    tokens: int
    squares: int


def padded(lengths: NDArray[np.int64], buckets: Sequence[int]) -> NDArray[np.int64]:
    """Tokens that an engine makes of a batch whose longest row has a length, for several such.

    Args:
        lengths: in tokens, any shape.
        buckets: of the engine (``Engine.length_buckets``); a length beyond them stays.
    """
    if not buckets:
        return lengths
    edges = np.asarray(buckets, dtype=np.int64)
    places = np.minimum(np.searchsorted(edges, lengths), len(edges) - 1)
    longest: NDArray[np.int64] = np.maximum(lengths, edges[places])
    return longest


def shape_of(lengths: Sequence[int], buckets: Sequence[int] = ()) -> Shape:
    """Shape of a batch of rows, padded to one of the buckets."""
    longest = int(padded(np.asarray(max(lengths)), buckets))
    return Shape(len(lengths), longest, sum(lengths), sum(length * length for length in lengths))
