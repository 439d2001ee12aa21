import itertools

import numpy as np
import pytest

from data.errors import ArtifactError
from serving.batching.costs import CostModel, Measurement, fit_costs
from serving.batching.shapes import Shape, shape_of

BYTES = (2e6, 5e3, 4e4, 30.0)
SECONDS = (3e-3, 1e-4, 2e-4, 1e-6)


def truth(weights, shape, *, computes_padding=True):
    padded = shape.rows * shape.longest
    features = (1, shape.rows, padded, padded * shape.longest)
    if not computes_padding:
        features = (1, shape.rows, shape.tokens, shape.squares)
    return sum(weight * feature for weight, feature in zip(weights, features, strict=True))


def batches(seed, count, noise, *, computes_padding=True):
    random = np.random.default_rng(seed)
    for _ in range(count):
        lengths = random.integers(3, 200, random.integers(1, 40)).tolist()
        shape = shape_of(lengths)
        factor = np.exp(random.normal(0, noise))
        yield Measurement(
            shape,
            int(truth(BYTES, shape, computes_padding=computes_padding) * factor),
            truth(SECONDS, shape, computes_padding=computes_padding) * factor,
        )


@pytest.mark.parametrize("computes_padding", [True, False])
def test_what_was_fitted_predicts_what_was_not_seen(computes_padding):
    seen = list(batches(1, 80, 0.03, computes_padding=computes_padding))
    costs = fit_costs(seen, computes_padding=computes_padding)
    unseen = list(batches(2, 2000, 0.03, computes_padding=computes_padding))
    errors = [abs(costs.bytes_likely(each.shape) / each.bytes - 1) for each in unseen]
    under = [each for each in unseen if each.bytes > costs.bytes_needed(each.shape)]
    assert np.median(errors) < 0.05
    assert len(under) <= 2 + 2000 * 0.001
    seconds = [abs(costs.seconds(each.shape) / each.seconds - 1) for each in unseen]
    assert np.median(seconds) < 0.05


def test_an_error_of_so_many_bytes_is_a_small_batchs_and_hardly_a_large_ones():
    """As counters have it that are read to so many pages: no share of what is measured."""
    random = np.random.default_rng(10)

    def with_noise(seed, count):
        for each in batches(seed, count, 0.0):
            yield each._replace(bytes=each.bytes + int(random.uniform(-5e5, 5e5)))

    costs = fit_costs(list(with_noise(11, 80)), computes_padding=True)
    unseen = list(with_noise(12, 2000))
    assert sum(each.bytes > costs.bytes_needed(each.shape) for each in unseen) <= 2
    small, large = shape_of([10]), shape_of([200] * 40)
    assert costs.bytes_needed(small) > costs.bytes_likely(small) + 5e5
    assert costs.bytes_needed(large) < 1.06 * costs.bytes_likely(large)
    for length in (8, 64, 300):
        rows = float(costs.rows_within(float(length), max_bytes=10e6, max_s=1e9))
        fits = Shape(max(1, int(rows)), length, 0, 0)
        assert rows < 1 or costs.bytes_needed(fits) <= 10e6 + 1


def test_no_cost_is_negative_and_more_is_never_cheaper():
    costs = fit_costs(list(batches(3, 30, 0.3)), computes_padding=True)
    for rows, longest in itertools.product((1, 4, 64), (8, 128, 512)):
        here = Shape(rows, longest, rows * longest, rows * longest**2)
        wider = Shape(rows + 1, longest + 1, 0, 0)
        assert 0 < costs.bytes_needed(here) <= costs.bytes_needed(wider)
        assert 0 < costs.seconds(here) <= costs.seconds(wider)


def test_too_few_measurements_are_refused():
    with pytest.raises(ValueError, match="measure 8 or more"):
        fit_costs(list(batches(1, 7, 0)), computes_padding=True)


def test_a_guess_learns_the_machine_it_is_on():
    costs = CostModel.unfitted()
    for each in batches(4, 400, 0.05):
        costs.observe(each.shape, each.seconds)
    assert costs.settled
    rest = list(batches(5, 200, 0.0))
    errors = [abs(costs.seconds(each.shape) / each.seconds - 1) for each in rest]
    assert np.median(errors) < 0.1
    assert max(errors) < 1.0


def test_the_pace_follows_a_slow_down_and_a_recovery_while_the_long_run_hardly_moves():
    costs = fit_costs(list(batches(6, 80, 0.01)), computes_padding=True)
    shape = shape_of([40] * 10)
    usual = costs.seconds(shape)
    base = costs.base_seconds(shape)
    for _ in range(40):
        costs.observe(shape, 2 * truth(SECONDS, shape))
    assert costs.seconds(shape) == pytest.approx(2 * usual, rel=0.1)
    assert costs.base_seconds(shape) < 1.9 * base
    for _ in range(60):
        costs.observe(shape, truth(SECONDS, shape))
    assert costs.seconds(shape) == pytest.approx(usual, rel=0.15)


def test_one_pause_of_the_machine_does_not_move_it_far():
    costs = fit_costs(list(batches(6, 80, 0.01)), computes_padding=True)
    shape = shape_of([40] * 10)
    for _ in range(100):
        costs.observe(shape, truth(SECONDS, shape))
    usual = costs.seconds(shape)
    costs.observe(shape, 100 * usual)
    assert costs.seconds(shape) < 1.3 * usual


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("serving.batching.costs.time", clock)
    return clock


def test_what_did_not_fit_is_a_cap_that_grows_back(clock):
    costs = fit_costs(list(batches(7, 40, 0.01)), computes_padding=True)
    failed, half = shape_of([100] * 32), shape_of([100] * 16)
    costs.out_of_memory(failed)
    first = costs.cap_bytes
    assert first is not None
    assert costs.bytes_needed(half) <= first < costs.bytes_needed(failed)
    costs.out_of_memory(half)
    assert costs.cap_bytes < costs.bytes_needed(half)
    for _ in range(200):
        costs.observe(half, 1.0)
    assert costs.cap_bytes < costs.bytes_needed(half)  # many batches in no time show nothing
    for _ in range(200):
        clock.now += 0.1
        costs.observe(half, 1.0)
    assert costs.cap_bytes > costs.bytes_needed(half)


def serve_for(seconds, clock, costs, fits):
    """The largest batch that the cap allows, twice a second; when they ran out of memory."""
    failed_at = []
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.5
        rows = int(costs.rows_within(40.0, max_bytes=costs.cap_bytes or 1e18, max_s=1e9))
        shape = shape_of([40] * max(1, min(rows, 200)))
        if fits(shape):
            costs.observe(shape, truth(SECONDS, shape))
        else:
            costs.out_of_memory(shape)
            failed_at.append(clock.now)
    return failed_at


def test_a_limit_that_lasts_is_hit_ever_more_rarely_and_one_that_is_lifted_is_found_out(clock):
    costs = fit_costs(list(batches(9, 40, 0.01)), computes_padding=True)
    failed_at = serve_for(3_600, clock, costs, lambda shape: shape.rows <= 60)
    assert 2 <= len(failed_at) <= 14
    assert sum(at > 1_800 for at in failed_at) <= 1
    whole = costs.bytes_needed(shape_of([40] * 200))
    assert costs.cap_bytes < whole
    assert not serve_for(7_200, clock, costs, lambda shape: True)
    assert costs.cap_bytes > whole


def test_the_rows_that_fit_do_and_one_more_does_not():
    costs = fit_costs(list(batches(8, 40, 0.02)), computes_padding=True)
    for length in (8, 64, 300):
        rows = int(costs.rows_within(length, max_bytes=50e6, max_s=0.4))
        fits = Shape(rows, length, rows * length, rows * length**2)
        more = Shape(rows + 1, length, (rows + 1) * length, (rows + 1) * length**2)
        assert costs.bytes_needed(fits) <= 50e6 + 1
        assert costs.seconds(fits) <= 0.4 + 1e-6
        assert costs.bytes_needed(more) > 50e6 or costs.seconds(more) > 0.4


def test_it_is_kept_as_json(tmp_path):
    costs = fit_costs(list(batches(9, 40, 0.02)), computes_padding=False)
    costs.save(tmp_path / "costs.json")
    again = CostModel.load(tmp_path / "costs.json")
    shape = shape_of([5, 90, 33])
    assert again.bytes_needed(shape) == costs.bytes_needed(shape)
    assert again.seconds(shape) == pytest.approx(costs.seconds(shape))
    assert not again.computes_padding
    (tmp_path / "costs.json").write_text("{}")
    with pytest.raises(ArtifactError, match="calibrate the engine again"):
        CostModel.load(tmp_path / "costs.json")
