"""Which windows go together: rows of like length, as many as a budget of tokens holds."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.engines.protocol import Engine, Outputs
from serving.windows import pad

TOKEN_BUDGET: Final = 1024
"""Padded tokens of one batch: sorted within it, padding is 1.017 of the real tokens."""


def plan_batches(lengths: Sequence[int], token_budget: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each batch: rows sorted by length, as many as the padded budget holds."""
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    start = 0
    while start < len(order):
        rows = max(1, token_budget // int(lengths[int(order[start])]))
        yield order[start : start + rows]
        start += rows


def run_in_batches(
    engine: Engine, windows: Sequence[Sequence[int]], pad_id: int, *, token_budget: int
) -> Outputs:
    """Outputs, one row per window, in the windows' order.

    Args:
        engine: that runs them.
        windows: at least one, token ids each.
        pad_id: id of the padding token.
        token_budget: padded tokens of one batch.
    """
    order: list[NDArray[np.int64]] = []
    parts: list[Outputs] = []
    for rows in plan_batches([len(window) for window in windows], token_budget):
        order.append(rows)
        parts.append(engine.run(*pad([windows[row] for row in rows], pad_id)))
    back = np.argsort(np.concatenate(order))
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
