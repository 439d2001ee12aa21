"""Windows laid end to end into a shape that others fit into too."""

import pytest
import torch

from serving.engines.packed_batch import BatchShape, pack, shape_of, unpack
from serving.windows import pad


def test_a_batch_is_laid_into_a_larger_shape() -> None:
    ids, mask = pad([[7, 8, 9], [5]], 0)
    assert shape_of(mask) == BatchShape(tokens=4, windows=2, longest=3)
    shape = BatchShape(tokens=6, windows=3, longest=4)
    batch = unpack(torch.from_numpy(pack(ids, mask, shape)), shape)
    assert batch.ids.tolist() == [7, 8, 9, 5, 0, 0]
    assert batch.positions.tolist() == [0, 1, 2, 0, 0, 0]
    assert batch.places.tolist() == [0, 1, 2, 4, 12, 12]
    assert batch.starts.tolist() == [0, 3, 4, 4]
    assert batch.mask.long().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 1000, 1024, 1025, 5000])
def test_rounding_up_costs_little(tokens: int) -> None:
    shape = BatchShape(tokens, windows=max(tokens // 39, 1), longest=min(tokens, 90))
    rounded = shape.rounded_up(128)
    assert all(large >= small for large, small in zip(rounded, shape, strict=True))
    assert rounded.tokens <= max(64, tokens + max(64, tokens // 8))
    assert rounded.longest <= 128
    assert rounded.rounded_up(128) == rounded
