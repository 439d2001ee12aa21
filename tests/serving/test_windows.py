import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from data.errors import EngineError
from serving.logits import Logits
from serving.windows import (
    Windows,
    lay_windows,
    merge_windows,
    pad,
    special_token_id,
    split_into_windows,
)

CLS, SEP = 2, 3


def lay(*lengths: int, max_tokens: int = 10, overlap_tokens: int = 3) -> Windows:
    """Windows of texts whose tokens are 100, 101, 102, …"""
    return lay_windows(
        [list(range(100, 100 + length)) for length in lengths],
        cls=CLS,
        sep=SEP,
        max_tokens=max_tokens,
        overlap_tokens=overlap_tokens,
    )


@pytest.mark.parametrize("length", [0, 1, 7, 8])
def test_a_text_that_fits_is_one_window(length):
    windows = lay(length)
    assert windows.ids == [[CLS, *range(100, 100 + length), SEP]]
    assert windows.weights.tolist() == [1.0]
    assert windows.per_text.tolist() == [1]


def test_one_token_over_makes_two_full_windows():
    windows = lay(9)
    assert windows.ids == [[CLS, *range(100, 108), SEP], [CLS, *range(101, 109), SEP]]
    assert windows.weights.tolist() == [0.5, 0.5]


def test_two_windows_share_the_overlap_and_the_last_ends_with_the_text():
    windows = lay(15)
    starts = [window[1] - 100 for window in windows.ids]
    assert starts == [0, 5, 7]
    assert windows.ids[-1][-2] == 114


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    sizes=st.integers(8, 40).flatmap(lambda m: st.tuples(st.just(m), st.integers(0, m - 3))),
)
def test_no_token_is_lost_and_weights_add_up_to_1(lengths, sizes):
    max_tokens, overlap = sizes
    windows = lay(*lengths, max_tokens=max_tokens, overlap_tokens=overlap)
    assert windows.texts == len(lengths)
    assert windows.text_index.tolist() == sorted(windows.text_index.tolist())
    for text, length in enumerate(lengths):
        own = [i for i, owner in enumerate(windows.text_index) if owner == text]
        parts = [windows.ids[i] for i in own]
        assert all(len(part) <= max_tokens for part in parts)
        assert all((part[0], part[-1]) == (CLS, SEP) for part in parts)
        assert {t for part in parts for t in part[1:-1]} == set(range(100, 100 + length))
        assert float(windows.weights[own].sum()) == pytest.approx(1.0, abs=1e-5)
        for left, right in itertools.pairwise(parts):
            assert len(set(left[1:-1]) & set(right[1:-1])) >= overlap
        if len(parts) > 1:
            assert {len(part) for part in parts} == {max_tokens}
            assert parts[-1][-2] == 99 + length


def test_a_very_long_text_is_never_cut():
    windows = lay(10_000, max_tokens=128, overlap_tokens=32)
    assert len(windows.ids) == 1 + -(-(10_000 - 126) // 94)
    assert {token for window in windows.ids for token in window} >= set(range(100, 10_100))


def test_no_texts_have_no_windows():
    assert lay().ids == []
    assert lay().per_text.tolist() == []


@pytest.mark.parametrize("overlap", [8, 9, 100])
def test_an_overlap_that_leaves_no_step_is_refused(overlap):
    with pytest.raises(EngineError, match=f"overlap_tokens={overlap}"):
        lay(5, overlap_tokens=overlap)
    assert len(lay(9, overlap_tokens=7).ids) == 2


def logits(rows: int, seed: int = 0) -> Logits:
    random = np.random.default_rng(seed)
    shapes = {"sentiment": (3,), "intensity": (4,), "emotions": (8,), "aspects": (6, 3)}
    return Logits(
        **{
            name: random.normal(size=(rows, *shape)).astype(np.float32)
            for name, shape in shapes.items()
        }
    )


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_merging_is_the_mean_by_tokens(lengths):
    windows = lay(*lengths)
    before = logits(len(windows.ids))
    merged = merge_windows(before, windows)
    for name in ("sentiment", "intensity", "emotions", "aspects"):
        for text in range(len(lengths)):
            total, tokens = 0.0, 0
            for row, window in enumerate(windows.ids):
                if windows.text_index[row] == text:
                    total = total + getattr(before, name)[row].astype(np.float64) * len(window)
                    tokens += len(window)
            np.testing.assert_allclose(getattr(merged, name)[text], total / tokens, atol=1e-5)


def test_padding_is_on_the_right_and_masked():
    ids, mask = pad([[2, 7, 3], [2, 3], [2, 8, 9, 3]], 1)
    assert ids.tolist() == [[2, 7, 3, 1], [2, 3, 1, 1], [2, 8, 9, 3]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert (ids.dtype, mask.dtype) == (np.int64, np.int64)


def a_tokenizer(*tokens: str) -> Tokenizer:
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_texts_are_tokenised_without_special_tokens_twice():
    tokenizer = a_tokenizer("[PAD]", "[UNK]", "[CLS]", "[SEP]", "맛", "최고")
    windows = split_into_windows(
        tokenizer, ["맛 최고", "", "모름 맛"], max_tokens=8, overlap_tokens=2
    )
    assert windows.ids == [[2, 4, 5, 3], [2, 3], [2, 1, 4, 3]]


def test_a_tokenizer_without_a_special_token_is_refused():
    tokenizer = a_tokenizer("[PAD]", "[UNK]", "[CLS]", "맛")
    assert special_token_id(tokenizer, "[CLS]") == 2
    with pytest.raises(EngineError, match=r"'\[SEP\]'"):
        split_into_windows(tokenizer, ["맛"], max_tokens=8, overlap_tokens=2)
