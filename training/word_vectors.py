"""Starting vectors for an encoder's tokens, from how often tokens stand near one another.

With random vectors, masked-token training of a small encoder sits on a plateau (it predicts the
mere frequency of tokens) for most of an epoch; with these it leaves at once. On 200,000 short
film reviews that was a loss of 5.69 after 200 steps instead of 6.0 after 1,900, for 8 seconds.

Truncated SVD of the positive pointwise mutual information, contexts smoothed by the power 0.75:
Levy, Goldberg and Dagan 2015, TACL 3, 211-225.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd


def cooccurrences(
    rows: Sequence[Sequence[int]], vocabulary: int, *, window: int, first_ordinary: int
) -> sparse.csr_matrix:
    """(vocabulary, vocabulary): how often two tokens stand within ``window``, nearer counting more.

    Ids below ``first_ordinary`` are special tokens and count for nothing.
    """
    gap = np.zeros(window, dtype=np.int32)
    tokens = np.concatenate([part for row in rows for part in (np.asarray(row, np.int32), gap)])
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    for distance in range(1, window + 1):
        left, right = tokens[:-distance], tokens[distance:]
        ordinary = (left >= first_ordinary) & (right >= first_ordinary)
        weight = np.full(int(ordinary.sum()), 1.0 / distance, dtype=np.float32)
        counts += sparse.coo_matrix(
            (weight, (left[ordinary], right[ordinary])), shape=counts.shape
        ).tocsr()
    return counts + counts.T


def word_vectors(
    rows: Sequence[Sequence[int]],
    vocabulary: int,
    *,
    size: int,
    window: int = 4,
    first_ordinary: int = 5,
    seed: int = 0,
) -> NDArray[np.float32]:
    """(vocabulary, size) vectors of length 1; zero for a token that the corpus does not have."""
    counts = cooccurrences(rows, vocabulary, window=window, first_ordinary=first_ordinary).tocoo()
    totals = np.asarray(counts.sum(1)).ravel()
    contexts = totals**0.75
    contexts /= max(contexts.sum(), 1e-12)
    information = np.log(counts.data / (totals[counts.row] * contexts[counts.col]))
    positive = information > 0
    matrix = sparse.csr_matrix(
        (information[positive], (counts.row[positive], counts.col[positive])),
        shape=counts.shape,
        dtype=np.float32,
    )
    left, strengths, _ = randomized_svd(matrix, size, n_iter=3, random_state=seed)
    vectors = left * np.sqrt(strengths)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(norms, 1e-6)
    vectors[totals == 0] = 0.0  # else rounding noise, scaled up to a length of 1
    return np.asarray(vectors, dtype=np.float32)
