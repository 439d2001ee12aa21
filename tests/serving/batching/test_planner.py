from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching.costs import CostFile, CostModel
from serving.batching.planner import (
    Limits,
    first_rows,
    flat_tokens,
    nearest_rows,
    plan_batches,
    worth_waiting,
)
from serving.batching.requests import Request, rows_of
from serving.batching.shapes import shape_of
from serving.batching.waiting import WaitingRows
from serving.windows import lay_windows


def costs_of(fixed=1e-3, token=1e-5, *, computes_padding=True):
    return CostModel(
        CostFile(
            computes_padding=computes_padding,
            bytes_of=(1e3, 10.0, 100.0, 1.0),
            byte_margin=1.1,
            seconds_of=(fixed, 0.0, token, 0.0),
            measured=50,
        )
    )


def limits_of(**changes):
    given_ = {"tokens": 1024, "rows": 256, "bytes": 10**9, "seconds": 1e9, "padding": 1.05}
    return Limits(**(given_ | changes))


LENGTHS = st.lists(st.integers(2, 512), min_size=1, max_size=80).map(sorted)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60), st.integers(1, 2048))
def test_offline_plans_hold_every_row_once_within_the_budget(lengths, budget):
    batches = list(plan_batches(lengths, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        padded = len(rows) * max(lengths[row] for row in rows)
        assert len(rows) == 1 or padded <= budget


@given(
    LENGTHS,
    st.data(),
    st.sampled_from([(), (8, 64, 512), (20, 100)]),
    st.integers(8, 4096),
    st.integers(10**3, 10**6),
)
def test_a_plan_holds_the_row_that_has_to_go_and_every_limit(lengths, data, buckets, tokens, room):
    anchor = data.draw(st.integers(0, len(lengths) - 1))
    costs = costs_of()
    limits = limits_of(tokens=tokens, bytes=room, seconds=0.05)
    low, high = nearest_rows(lengths, anchor, costs, limits, buckets=buckets)
    assert 0 <= low <= anchor < high <= len(lengths)
    taken = lengths[low:high]
    if len(taken) > 1:
        shape = shape_of(taken, buckets)
        alone = sum(shape_of([length], buckets).longest for length in taken)
        assert shape.rows * shape.longest <= tokens
        assert shape.rows * shape.longest <= 1.05 * alone + 1e-6
        assert costs.bytes_needed(shape) <= room + 1
        assert costs.seconds(shape) <= 0.05 + 1e-6


def test_what_a_bucket_pads_is_computed_and_counted_and_keeps_no_rows_apart():
    assert [shape_of([length], (16, 40, 100)).longest for length in (3, 16, 17, 100, 120)] == [
        16,
        16,
        40,
        100,
        120,
    ]
    lengths = [17] * 10 + [25] * 10 + [41] * 10
    limits = limits_of(tokens=800)
    assert nearest_rows(lengths, 0, costs_of(fixed=1.0), limits, buckets=(16, 40, 100)) == (0, 20)
    low, high = nearest_rows(lengths, 25, costs_of(fixed=1.0), limits, buckets=(16, 40, 100))
    assert high - low == 8  # of 100 tokens each
    few = limits_of(tokens=800, bytes=costs_of().bytes_needed(shape_of([40] * 5)))
    low, high = nearest_rows(lengths, 0, costs_of(fixed=1.0), few, buckets=(16, 40, 100))
    assert high - low == 5


@given(LENGTHS, st.integers(2, 1024))
def test_without_padding_a_plan_is_the_first_rows_within_every_limit(lengths, tokens):
    costs = costs_of(computes_padding=False)
    count = first_rows(lengths, costs, limits_of(tokens=tokens))
    assert 1 <= count <= len(lengths)
    assert count == 1 or sum(lengths[:count]) <= tokens
    assert count == len(lengths) or sum(lengths[: count + 1]) > tokens


def test_a_dear_start_fills_batches_and_a_free_one_leaves_no_padding():
    lengths = [10] * 4 + [11] * 4 + [12] * 4
    wide = limits_of(padding=float("inf"))
    assert nearest_rows(lengths, 5, costs_of(fixed=1.0), wide) == (0, 12)
    # Even where a fit sees no fixed seconds, a jump in length is not worth it.
    assert nearest_rows([10] * 9 + [100] * 9, 3, costs_of(fixed=0.0), wide) == (0, 9)


def test_equal_rows_above_a_jump_are_worth_it():
    lengths = [10, 20, 20, 20, 20, 20, 20, 20, 20, 20, 20]
    assert nearest_rows(lengths, 0, costs_of(), limits_of(padding=1.06)) == (0, 11)
    assert nearest_rows(lengths, 0, costs_of(), limits_of(padding=1.02)) == (0, 1)


def test_a_batch_is_as_large_as_the_fixed_seconds_are_worth():
    # Fixed seconds are 3% of a batch: 97 / 3 of them are its tokens', at 10 us each.
    assert flat_tokens(costs_of(fixed=1e-3), 40, least=1, most=10**6) == pytest.approx(
        3233, rel=0.01
    )
    assert flat_tokens(costs_of(fixed=0.0), 40, least=256, most=4096) == 256
    assert flat_tokens(costs_of(fixed=1.0), 40, least=256, most=4096) == 4096


def test_waiting_pays_when_the_next_is_due_before_a_start_is_paid_for():
    costs = costs_of(fixed=2e-3)
    assert worth_waiting(costs, 40, gap_s=1e-3, left_s=5e-3)
    assert not worth_waiting(costs, 40, gap_s=3e-3, left_s=5e-3)
    assert not worth_waiting(costs, 40, gap_s=1e-3, left_s=5e-4)
    assert not worth_waiting(costs, 40, gap_s=float("inf"), left_s=5e-3)


def requested(waiting, lengths):
    request = Request(["x"] * len(lengths), SimpleNamespace(done=lambda: False))
    ids = [[5] * (length - 2) for length in lengths]
    windows = lay_windows(ids, cls=1, sep=2, max_tokens=512, overlap_tokens=2)
    rows = rows_of(request, 0, windows, 0.0)
    waiting.add(rows)
    waiting.refill(10**6)
    return request, rows


def test_requests_take_turns_by_their_tokens():
    waiting = WaitingRows()
    huge, _ = requested(waiting, [50] * 100)
    served = []
    for turn in range(12):
        if turn == 5:
            small, _ = requested(waiting, [50, 50])
        row = waiting.oldest()
        waiting.take([row])
        served.append(row.text.request)
    assert served[:5] == [huge] * 5
    assert served[5:10].count(small) == 2
    assert len(waiting) == 90
    assert waiting.tokens == 90 * 50


def test_only_what_comes_first_is_ordered_by_length():
    waiting = WaitingRows()
    request = Request(["x"] * 9, SimpleNamespace(done=lambda: False))
    ids = [[5] * length for length in (40, 30, 20, 10, 9, 8, 7, 6, 5)]
    windows = lay_windows(ids, cls=1, sep=2, max_tokens=512, overlap_tokens=2)
    rows = rows_of(request, 0, windows, 0.0)
    waiting.add(rows)
    waiting.refill(70)
    assert waiting.around(rows[0], 9) == ([rows[1], rows[0]], 1)
    waiting.take([rows[1]])
    waiting.refill(70)
    assert waiting.around(rows[0], 9) == ([rows[3], rows[2], rows[0]], 2)
    assert waiting.drop(request) == 8
    waiting.refill(70)
    assert waiting.oldest() is None
    assert len(waiting) == waiting.tokens == 0


def test_what_is_dropped_or_taken_is_never_seen_again():
    waiting = WaitingRows()
    first, _ = requested(waiting, [10, 20, 30])
    second, rows = requested(waiting, [15, 25])
    assert waiting.drop(first) == 3
    assert waiting.oldest() is rows[0]
    assert waiting.by_turn(9) == rows
    near, place = waiting.around(rows[1], 5)
    assert (near, place) == (rows, 1)
    waiting.take(rows)
    assert waiting.oldest() is None
    assert len(waiting) == waiting.tokens == 0
    assert waiting.drop(second) == 0
