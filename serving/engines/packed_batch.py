"""A padded batch as one row of integers that a GPU takes in one copy, padding left out.

    ids (tokens) | positions (tokens) | places (tokens) | starts (windows + 1)

It may be laid into a larger shape, so that batches of nearly one size are one size: windows beyond
the real ones are empty, and tokens beyond the real ones lie past the last window.
"""

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from serving.engines.protocol import TokenIds
from serving.engines.token_layout import window_lengths

_LEAST_TOKENS: Final = 64
_LEAST_LENGTH: Final = 32
_STEPS_PER_OCTAVE: Final = 8


class BatchShape(NamedTuple):
    """Sizes of a batch, all of them upper bounds of what lies in it.

    Attributes:
        tokens: real ones of all windows.
        windows: rows.
        longest: tokens of a row.
    """

    tokens: int
    windows: int
    longest: int

    def rounded_up(self, most_tokens: int) -> "BatchShape":
        """A shape that few others are needed beside: at most an eighth more tokens.

        Args:
            most_tokens: of one window, in the model.
        """
        octave = 1 << (max(self.tokens - 1, 1).bit_length() - 1)
        step = max(_LEAST_TOKENS, octave // _STEPS_PER_OCTAVE)
        longest = max(_LEAST_LENGTH, _power_of_two(self.longest))
        return BatchShape(
            tokens=-(-self.tokens // step) * step,
            windows=_power_of_two(self.windows),
            longest=min(longest, most_tokens),
        )


class PackedBatch(NamedTuple):
    """Tensors of one packed batch, on the device it was copied to.

    Attributes:
        ids: (tokens,), token ids.
        positions: (tokens,), each token's place in its window, from 0.
        places: (tokens,), each token's index in the flattened padded batch; windows · longest for
            what is no real token.
        starts: (windows + 1,), int32: where each window begins, and where the last one ends.
        mask: (windows, longest), whether a token is real.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    starts: Tensor
    mask: Tensor


def shape_of(attention_mask: TokenIds) -> BatchShape:
    """The shape that a padded batch has without its padding.

    Raises:
        EngineError: a row has no real token, or padding that is not on its right.
    """
    lengths = window_lengths(attention_mask)
    return BatchShape(int(lengths.sum()), len(lengths), int(lengths.max()))


def pack(input_ids: TokenIds, attention_mask: TokenIds, shape: BatchShape) -> TokenIds:
    """(3 · tokens + windows + 1,): the batch's real tokens, laid into a shape that holds them.

    Args:
        input_ids: (batch, tokens), padded on the right.
        attention_mask: (batch, tokens), 1 for a real token.
        shape: at least that of the batch in each of its sizes.
    """
    real = attention_mask.astype(np.bool_)
    rows, columns = np.nonzero(real)
    out = np.zeros(3 * shape.tokens + shape.windows + 1, dtype=np.int64)
    ids, positions, places, starts = np.split(out, np.arange(1, 4) * shape.tokens)
    count = len(rows)
    ids[:count] = input_ids[real]
    positions[:count] = columns
    places[:] = shape.windows * shape.longest
    places[:count] = rows * shape.longest + columns
    starts[:] = count
    starts[0] = 0
    starts[1 : len(real) + 1] = np.cumsum(real.sum(axis=1))
    return out


def unpack(packed: Tensor, shape: BatchShape) -> PackedBatch:
    """The tensors of what ``pack`` laid, computed where it lies."""
    tokens = shape.tokens
    ids, positions, places, starts = packed.split([tokens, tokens, tokens, shape.windows + 1])
    column = torch.arange(shape.longest, device=packed.device)
    mask = column < starts.diff().unsqueeze(1)
    return PackedBatch(ids, positions, places, starts.to(torch.int32), mask)


def spread(rows: Tensor, batch: PackedBatch, dtype: torch.dtype) -> Tensor:
    """(windows, longest, size) from (tokens, size); padding is 0."""
    windows, longest = batch.mask.shape
    # One row more than the batch has takes what is no real token.
    out = torch.zeros(windows * longest + 1, rows.shape[1], dtype=dtype, device=rows.device)
    return out.index_copy_(0, batch.places, rows.to(dtype))[:-1].view(windows, longest, -1)


def gather(values: Tensor, batch: PackedBatch) -> Tensor:
    """(tokens, size) from (windows, longest, size); what is no real token has any value."""
    flat = values.reshape(batch.mask.numel(), -1)
    return flat.index_select(0, batch.places.clamp(max=len(flat) - 1))


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
