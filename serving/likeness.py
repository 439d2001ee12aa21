"""How alike two models' vectors of the same texts are: by cosine, and by the neighbours they find.

Cosines say how far a vector moved, the neighbours whether it matters to a search.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.engines.protocol import Floats

NEIGHBOURS: Final = 10


def unit(vectors: Floats) -> NDArray[np.float64]:
    """The same directions at length 1, (texts, dimensions)."""
    wide = vectors.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def cosines(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Cosine of each row with its like, (texts,)."""
    return np.asarray((unit(one) * unit(other)).sum(axis=1))


def neighbour_overlap(one: Floats, other: Floats) -> float:
    """Mean share of each row's ten nearest other rows, by cosine, that both agree on."""
    shared = [
        len(set(first) & set(second))
        for first, second in zip(_nearest(one), _nearest(other), strict=True)
    ]
    return float(np.mean(shared)) / NEIGHBOURS


def _nearest(vectors: Floats) -> list[list[int]]:
    """Of each row the ten nearest others; of equally near ones the first."""
    directions = unit(vectors)
    scores = directions @ directions.T
    np.fill_diagonal(scores, -np.inf)
    nearest: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS].tolist()
    return nearest
