"""Which windows go together: rows of like length, as many as a budget of tokens holds."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.batching.costs import CostModel
from serving.batching.shapes import Shape, padded
from serving.engines.protocol import Engine, Outputs
from serving.windows import pad

TOKEN_BUDGET: Final = 1024
"""Padded tokens of one batch: sorted within it, padding is 1.017 of the real tokens."""
_FIXED_SHARE: Final = 0.03
_LEAST_FIXED_TOKENS: Final = 24


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


class Limits(NamedTuple):
    """What one batch may be.

    Attributes:
        tokens: padded ones, or real ones where padding is left out.
        rows: windows.
        bytes: predicted, at p99.9.
        seconds: predicted.
        padding: tokens that are computed together over those that would be alone; infinite when so
            little waits that company counts more.
    """

    tokens: int
    rows: int
    bytes: int
    seconds: float
    padding: float


def flat_tokens(costs: CostModel, length: float, *, least: int, most: int) -> int:
    """Tokens from which a larger batch is hardly faster: its fixed seconds are 3% of it."""
    fixed, per_row = costs.row_seconds(max(1, round(length)))
    rows = fixed / per_row * (1 - _FIXED_SHARE) / _FIXED_SHARE
    return int(min(max(rows * length, least), most))


def nearest_rows(
    lengths: Sequence[int],
    anchor: int,
    costs: CostModel,
    limits: Limits,
    *,
    buckets: Sequence[int] = (),
) -> tuple[int, int]:
    """Which neighbours go with a row, where padding is computed: the most real tokens a second.

    Args:
        lengths: of rows that wait, shortest first.
        anchor: place of the row that has to go.
        costs: predicts seconds and bytes.
        limits: of the batch; the anchor goes however large it is.
        buckets: that lengths are padded to.

    Returns:
        first and last place + 1 of the rows that go; the anchor is among them.
    """
    own = np.asarray(lengths, dtype=np.int64)
    alone = padded(own, buckets)
    sums = np.concatenate([[0], np.cumsum(own)])
    alone_sums = np.concatenate([[0], np.cumsum(alone)])
    highs = np.arange(anchor, len(own))[:, None]
    lows = np.arange(anchor + 1)[None, :]
    longest = alone[anchor:, None]
    rows = highs + 1 - lows
    real = sums[highs + 1] - sums[lows]
    most = costs.rows_within(longest, max_bytes=limits.bytes, max_s=limits.seconds)
    most = np.minimum(np.minimum(most, limits.rows), limits.tokens // longest)
    # What a row's own bucket pads it by, no other company would spare it.
    may = (rows <= most) & (
        rows * longest <= limits.padding * (alone_sums[highs + 1] - alone_sums[lows])
    )
    may[0, anchor] = True
    fixed_s, row_s = costs.row_seconds(longest)
    # No engine is as fast on a few tokens as on many, however little a fit makes of it.
    fixed_s = max(fixed_s, float(row_s[0, 0]) * _LEAST_FIXED_TOKENS / float(longest[0, 0]))
    rate = np.where(may, real / (fixed_s + rows * row_s), 0.0)
    high, low = np.unravel_index(int(np.argmax(rate)), rate.shape)
    return int(low), anchor + int(high) + 1


def first_rows(lengths: Sequence[int], costs: CostModel, limits: Limits) -> int:
    """How many rows go in their turn's order, where padding is left out; at least 1."""
    tokens = squares = longest = 0
    for count, length in enumerate(lengths):
        tokens += length
        squares += length * length
        longest = max(longest, length)
        shape = Shape(count + 1, longest, tokens, squares)
        if count and (
            count >= limits.rows
            or tokens > limits.tokens
            or costs.bytes_needed(shape) > limits.bytes
            or costs.seconds(shape) > limits.seconds
        ):
            return count
    return len(lengths)


def worth_waiting(costs: CostModel, length: float, *, gap_s: float, left_s: float) -> bool:
    """Whether the next window is likely to come soon enough for its company to pay.

    Together they save one batch's fixed seconds; waiting costs the time until it comes.

    Args:
        costs: predicts seconds.
        length: of the windows that come.
        gap_s: until the next is to be expected.
        left_s: that the oldest may still wait.
    """
    fixed, _ = costs.row_seconds(max(1, round(length)))
    return gap_s < min(fixed, left_s)
