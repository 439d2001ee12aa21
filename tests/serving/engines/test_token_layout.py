"""Padding goes, and every state comes back to its place."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.errors import EngineError
from serving.engines.token_layout import lay_tokens
from serving.windows import pad


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_every_token_is_laid_once_and_comes_back(lengths: list[int]) -> None:
    windows = [list(range(100 * row + 1, 100 * row + 1 + n)) for row, n in enumerate(lengths)]
    ids, mask = pad(windows, 0)

    layout = lay_tokens(ids, mask)

    assert len(layout.ids) == sum(lengths)
    back = layout.padded(layout.ids.float().unsqueeze(1), *ids.shape)
    assert torch.equal(back.squeeze(2).long(), torch.from_numpy(ids))
    places = layout.padded(layout.positions.float().unsqueeze(1), *ids.shape).squeeze(2)
    assert np.array_equal(places.numpy(), np.arange(ids.shape[1]) * mask)
    assert sum(group.windows * group.length for group in layout.groups) == sum(lengths)
    starts = np.cumsum([0, *(group.windows * group.length for group in layout.groups)])
    assert [group.start for group in layout.groups] == starts[:-1].tolist()
    assert [group.length for group in layout.groups] == sorted(set(lengths))


@pytest.mark.parametrize("row", [[0, 0, 0], [0, 1, 1], [1, 0, 1], [2, 0, 0]])
def test_a_mask_that_is_no_window_is_refused(row: list[int]) -> None:
    mask = np.array([[1, 1, 1], row])

    with pytest.raises(EngineError, match="row 1 of the batch"):
        lay_tokens(np.ones((2, 3), dtype=np.int64), mask)
