import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.batching.lengths import ArrivalRate, DrainRate, LengthEstimate


def test_it_tells_mean_and_quantiles_of_what_came():
    random = np.random.default_rng(5)
    lengths = np.clip(random.lognormal(3.4, 0.7, 20_000), 3, 512).astype(int)
    estimate = LengthEstimate(memory=10**9)
    for start in range(0, len(lengths), 100):
        estimate.add(lengths[start : start + 100].tolist())
    assert estimate.mean == pytest.approx(lengths.mean(), rel=0.01)
    for share in (0.1, 0.5, 0.95, 0.99):
        assert estimate.quantile(share) == pytest.approx(np.quantile(lengths, share), rel=0.1)
    assert sum(share for _, share in estimate.shares()) == pytest.approx(1.0)
    assert estimate.seen == 20_000


def test_it_follows_the_traffic():
    estimate = LengthEstimate(memory=500)
    estimate.add([20] * 5_000)
    assert estimate.quantile(0.5) == 20
    for _ in range(50):
        estimate.add([300] * 50)
    assert estimate.mean == pytest.approx(300, rel=0.05)
    assert 300 <= estimate.quantile(0.5) <= 330


def test_so_much_traffic_that_counts_would_overflow():
    estimate = LengthEstimate(memory=10)
    for _ in range(1_000):
        estimate.add([7] * 50)
    assert estimate.mean == pytest.approx(7, rel=1e-6)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_quantile_is_never_under_what_it_says(lengths, share):
    estimate = LengthEstimate(memory=10**12, prior=1)
    estimate.add(lengths)
    assert estimate.quantile(0.0) <= estimate.quantile(share) <= estimate.quantile(1.0)
    assert estimate.quantile(1.0) >= min(max(lengths), 2**16)


def test_a_share_in_percent_is_refused():
    with pytest.raises(ValueError, match=r"ask for 0\.95, not 95"):
        LengthEstimate().quantile(95)


def test_the_next_arrival_is_expected_from_the_last_gaps():
    rate = ArrivalRate(memory=4)
    assert rate.gap_s(0.0) == float("inf")
    for step in range(100):
        rate.add(step * 0.01)
    assert rate.gap_s(0.99) == pytest.approx(0.01, rel=0.01)
    assert rate.gap_s(1.99) == pytest.approx(1.0)  # a silence counts
    for step in range(100):
        rate.add(2 + step * 0.01, 10)
    assert rate.gap_s(2.99) == pytest.approx(0.001, rel=0.05)


def test_what_drains_under_load_tells_how_long_the_rest_takes():
    rate = DrainRate(memory_s=2.0)
    assert rate.seconds(0.0, 100) is None
    for step in range(50):
        rate.add(step * 0.1, 200, loaded=True)
    assert rate.seconds(4.9, 1_000) == pytest.approx(0.5, rel=0.01)
    rate.add(5.0, 200, loaded=False)
    rate.add(60.0, 200, loaded=True)  # a rest is not slowness
    assert rate.seconds(60.0, 1_000) is None  # and what was long ago says nothing
    for step in range(1, 30):
        rate.add(60 + step * 0.2, 200, loaded=True)
    assert rate.seconds(66.0, 1_000) == pytest.approx(1.0, rel=0.1)
