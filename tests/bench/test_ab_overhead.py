from types import SimpleNamespace

import numpy as np
import pytest

from bench import ab_overhead
from bench.load_client import Reply


def latencies(bare, journaled, committed):
    count = round(ab_overhead.RATE * ab_overhead.BLOCK_S) * 3
    spread = np.linspace(0.0, 1.0, count)
    return {
        "bare": bare + spread,
        "journaled": journaled + spread,
        "committed": committed + spread,
    }


def test_the_figures_are_what_is_added_and_say_what_the_default_adds():
    found = ab_overhead.figures_of(latencies(5.0, 5.2, 8.5), 2.9)
    half, most = found["overhead_p50_ms"], found["overhead_p99_ms"]
    assert half.value == pytest.approx(0.2)
    assert most.value == pytest.approx(0.2)
    assert half.met
    assert most.met
    assert "adds 3.50 ms" in half.conditions
    assert "fsync (median 2.9 ms" in half.conditions
    assert "median of 3 stretches" in most.conditions


def test_one_stretch_that_a_neighbour_spoiled_does_not_count():
    spoiled = latencies(5.0, 5.2, 8.5)
    spoiled["journaled"][-100:] += 50.0
    found = ab_overhead.figures_of(spoiled, 2.9)
    assert found["overhead_p99_ms"].value == pytest.approx(0.2)


def test_a_bar_that_is_missed_is_not_met():
    found = ab_overhead.figures_of(latencies(5.0, 7.5, 8.5), 2.9)
    assert not found["overhead_p50_ms"].met
    assert not found["overhead_p99_ms"].met


def test_a_gateway_that_does_not_answer_is_an_error():
    client = SimpleNamespace(replies=[Reply(at_s=0.0, status=503)])
    with pytest.raises(RuntimeError, match="1 of 1 requests failed, the first with 503"):
        ab_overhead._latencies_ms(client)
