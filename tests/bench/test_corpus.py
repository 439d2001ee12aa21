from itertools import islice

import numpy as np
import pytest

from bench.corpus import (
    LEAST_TOKENS,
    MOST_TOKENS,
    draw_lengths,
    english_sentences,
    fit_texts,
    korean_sentences,
    token_lengths,
)
from training.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(list(islice(korean_sentences(seed=1), 500)), vocabulary=6_000)


def test_lengths_are_those_of_reviews():
    lengths = np.asarray(draw_lengths(20_000, seed=1))
    assert lengths.mean() == pytest.approx(39, abs=1)
    assert np.percentile(lengths, 50) == pytest.approx(32.5, abs=1)
    assert np.percentile(lengths, 95) == pytest.approx(89, abs=2)
    assert lengths.max() == MOST_TOKENS
    assert lengths.min() >= LEAST_TOKENS


def test_equal_seeds_give_equal_texts(tokenizer):
    lengths = draw_lengths(20, seed=3)
    assert lengths == draw_lengths(20, seed=3)
    assert lengths != draw_lengths(20, seed=4)
    first, second = (list(fit_texts(korean_sentences(seed=5), lengths, tokenizer)) for _ in (1, 2))
    assert first == second


def test_texts_have_the_lengths_that_were_drawn_and_never_more(tokenizer):
    lengths = np.asarray(draw_lengths(200, seed=2))
    texts = list(fit_texts(korean_sentences(seed=2), list(lengths), tokenizer))
    got = np.asarray(token_lengths(texts, tokenizer))
    assert (got <= lengths).all()
    assert (lengths - got).max() <= 2
    assert got.mean() == pytest.approx(lengths.mean(), rel=0.01)


def test_english_sentences_are_many_and_each_once():
    sentences = english_sentences(seed=1)
    assert len(sentences) > 1_000
    assert len(set(sentences)) == len(sentences)
    assert sentences == english_sentences(seed=1)
    assert all(len(sentence.split()) >= 5 for sentence in sentences)
