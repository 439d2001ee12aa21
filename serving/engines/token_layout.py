"""A padded batch as its real tokens alone: one row a token, windows of equal length side by side.

Linear layers read the rows as one matrix, so padding costs nothing; attention reads windows of
equal length together, so it needs no mask.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.errors import EngineError
from serving.engines.protocol import TokenIds


@dataclass(frozen=True)
class Group:
    """Windows of one length, next to each other.

    Attributes:
        start: the first token's row.
        windows: how many.
        length: tokens of each.
    """

    start: int
    windows: int
    length: int


@dataclass(frozen=True)
class TokenLayout:
    """Where each real token of a padded batch goes.

    Attributes:
        ids: (tokens,), token ids, windows sorted by length.
        positions: (tokens,), each token's place in its window, from 0.
        places: (tokens,), each token's index in the flattened padded batch.
        groups: all windows, by length.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    groups: tuple[Group, ...]

    def padded(self, states: Tensor, batch: int, tokens: int) -> Tensor:
        """(batch, tokens, hidden) from (real tokens, hidden); padding is 0."""
        out = states.new_zeros(batch * tokens, states.shape[1])
        return out.index_copy_(0, self.places, states).view(batch, tokens, -1)


def window_lengths(attention_mask: TokenIds) -> TokenIds:
    """(batch,): real tokens of each window.

    Args:
        attention_mask: (batch, tokens), 1 for a real token.

    Raises:
        EngineError: a row has no real token, or padding that is not on its right.
    """
    lengths: TokenIds = attention_mask.sum(axis=1)
    column = np.arange(attention_mask.shape[1])
    uneven = np.flatnonzero((attention_mask != (column < lengths[:, None])).any(axis=1))
    if uneven.size or not lengths.all():
        row = int(uneven[0]) if uneven.size else int(np.argmin(lengths))
        raise EngineError(
            f"row {row!r} of the batch has the attention mask {attention_mask[row].tolist()!r}; "
            "a window is at least one token, padded on the right: lay it with serving.windows.pad"
        )
    return lengths


def lay_tokens(input_ids: TokenIds, attention_mask: TokenIds) -> TokenLayout:
    """Leave the padding out.

    Args:
        input_ids: (batch, tokens), padded on the right.
        attention_mask: (batch, tokens), 1 for a real token.

    Raises:
        EngineError: a row has no real token, or padding that is not on its right.
    """
    batch, tokens = input_ids.shape
    lengths = window_lengths(attention_mask)
    column = np.arange(tokens)
    order = np.argsort(lengths, kind="stable")
    real = column < lengths[order][:, None]
    places = (order[:, None] * tokens + column)[real]
    groups = []
    start = 0
    for length, windows in zip(*np.unique(lengths, return_counts=True), strict=True):
        groups.append(Group(start=start, windows=int(windows), length=int(length)))
        start += int(length * windows)
    return TokenLayout(
        ids=torch.from_numpy(input_ids[order][real]),
        positions=torch.from_numpy(np.broadcast_to(column, (batch, tokens))[real]),
        places=torch.from_numpy(places),
        groups=tuple(groups),
    )
