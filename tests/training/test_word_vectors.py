import numpy as np
import pytest

from training.word_vectors import cooccurrences, word_vectors

FIRST = 5
VOCABULARY = 14
SPECIAL = 4


def a_corpus(rows: int = 300) -> list[list[int]]:
    """5, 6 and 7 stand with one another, 8, 9 and 10 too, 11 with all; 12 and 13 nowhere."""
    random = np.random.default_rng(0)
    corpus = []
    for row in range(rows):
        family = [5, 6, 7] if row % 2 else [8, 9, 10]
        corpus.append([*random.permutation([*family, *family]).tolist(), 11])
    return corpus


def slow_counts(rows: list[list[int]], window: int) -> np.ndarray:
    counts = np.zeros((VOCABULARY, VOCABULARY))
    for row in rows:
        for i, left in enumerate(row):
            for j, right in enumerate(row):
                if i != j and abs(i - j) <= window and left >= FIRST and right >= FIRST:
                    counts[left, right] += 1 / abs(i - j)
    return counts


@pytest.mark.parametrize("window", [1, 2, 4])
@pytest.mark.parametrize(
    "rows",
    [
        [[5, 6, 7], [8, 5]],
        [[5], [6], [7]],
        [[2, 5, 6, 5, 5, 3], [], [6, SPECIAL, 7, 1, 8]],
    ],
)
def test_counts_are_those_of_a_slow_count(rows, window):
    got = cooccurrences(rows, VOCABULARY, window=window, first_ordinary=FIRST).toarray()
    np.testing.assert_allclose(got, slow_counts(rows, window), rtol=1e-6)


def test_counts_of_a_larger_corpus_too():
    got = cooccurrences(a_corpus(), VOCABULARY, window=3, first_ordinary=FIRST).toarray()
    np.testing.assert_allclose(got, slow_counts(a_corpus(), 3), rtol=1e-5)
    np.testing.assert_array_equal(got, got.T)


def test_vectors_are_those_of_a_slow_computation():
    counts = slow_counts(a_corpus(), 4)
    totals = counts.sum(1)
    contexts = totals**0.75 / (totals**0.75).sum()
    ppmi = np.zeros_like(counts)
    for word in range(VOCABULARY):
        for context in range(VOCABULARY):
            if counts[word, context] > 0:
                chance = totals[word] * contexts[context]
                ppmi[word, context] = max(np.log(counts[word, context] / chance), 0.0)
    left, strengths, _ = np.linalg.svd(ppmi)
    expected = left[:, :2] * np.sqrt(strengths[:2])
    expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-6)
    got = word_vectors(a_corpus(), VOCABULARY, size=2)
    assert (got.shape, got.dtype) == ((VOCABULARY, 2), np.float32)
    # The sign of a direction is free, the angles between tokens are not.
    np.testing.assert_allclose(got @ got.T, expected @ expected.T, atol=1e-3)


def test_related_tokens_are_nearer():
    vectors = word_vectors(a_corpus(), VOCABULARY, size=2)
    near = min(vectors[5] @ vectors[6], vectors[6] @ vectors[7], vectors[8] @ vectors[9])
    far = max(vectors[5] @ vectors[8], vectors[6] @ vectors[9], vectors[7] @ vectors[10])
    assert near > far + 0.3


def test_tokens_that_the_corpus_lacks_are_zero_and_the_others_have_length_1():
    lengths = np.linalg.norm(word_vectors(a_corpus(), VOCABULARY, size=4), axis=1)
    np.testing.assert_allclose(lengths[5:12], 1.0, atol=1e-5)
    np.testing.assert_allclose(lengths[[0, 1, 2, 3, 4, 12, 13]], 0.0, atol=1e-5)


def test_the_same_seed_gives_the_same_vectors():
    one, other = (word_vectors(a_corpus(), VOCABULARY, size=4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_corpus_of_single_tokens_has_no_vectors():
    assert not word_vectors([[5], [6]], VOCABULARY, size=4).any()
