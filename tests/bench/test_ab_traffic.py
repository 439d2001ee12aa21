from dataclasses import replace

import numpy as np
import pytest

from bench.ab_traffic import World, draw

MANY = World("사용자 많음", units=40_000)


def unit_means(traffic, values):
    return np.bincount(traffic.unit, weights=values) / np.bincount(traffic.unit)


def difference(traffic, values):
    """Of the units' means, with its standard error."""
    on, off = values[traffic.on], values[~traffic.on]
    error = np.sqrt(on.var() / len(on) + off.var() / len(off))
    return on.mean() - off.mean(), error


def test_the_same_seed_makes_the_same_traffic_sorted_by_unit_and_time():
    one, again, other = (draw(World("w", units=50), seed) for seed in (1, 1, 2))
    for name, values in vars(one).items():
        np.testing.assert_array_equal(values, getattr(again, name))
    assert len(other.unit) != len(one.unit)
    assert (np.lexsort((one.at, one.unit)) == np.arange(len(one.unit))).all()
    assert (one.age[np.flatnonzero(np.diff(one.unit, prepend=-1))] == 0.0).all()
    assert np.bincount(one.unit).min() >= 1


@pytest.mark.parametrize("effect", [0.0, 0.05, -0.1])
def test_the_mean_moves_by_the_effect(effect):
    traffic = draw(replace(MANY, effect=effect), 3)
    found, error = difference(traffic, unit_means(traffic, traffic.right))
    assert found == pytest.approx(effect, abs=4 * error)
    assert unit_means(traffic, traffic.right)[~traffic.on].mean() == pytest.approx(0.8, abs=0.01)


def test_answers_of_a_user_are_alike_and_users_differ_in_how_much_they_ask():
    traffic = draw(replace(MANY, likeness=0.3), 4)
    count = np.bincount(traffic.unit)
    first = np.cumsum(count) - count
    pairs = first[count > 1]
    together = np.corrcoef(traffic.right[pairs], traffic.right[pairs + 1])[0, 1]
    assert together == pytest.approx(0.3, abs=0.03)
    slow = np.corrcoef(traffic.latency_ms[pairs], traffic.latency_ms[pairs + 1])[0, 1]
    assert slow > 0.2
    assert np.quantile(count, 0.99) > 8 * np.median(count)


def test_novelty_wears_off_in_a_users_own_time():
    traffic = draw(replace(MANY, asks=8.0, days=21.0, novelty=0.15, fade_days=2.0), 5)
    for low, high, left in ((0.0, 0.01, 0.15), (1.9, 2.1, 0.15 / np.e), (15.0, 21.0, 0.0)):
        some = (traffic.age >= low) & (traffic.age < high)
        on = traffic.on[traffic.unit]
        found = traffic.right[some & on].mean() - traffic.right[some & ~on].mean()
        assert found == pytest.approx(left, abs=0.03)


def test_a_bot_asks_thousands_of_times_and_is_always_answered_alike():
    traffic = draw(replace(MANY, units=2_000, bots=0.01), 6)
    count, mean = np.bincount(traffic.unit), unit_means(traffic, traffic.right)
    bots = count > 1_500
    assert 10 <= bots.sum() <= 35
    assert set(mean[bots]) <= {0.0, 1.0}
    assert np.isfinite(traffic.known_at).all()
    mute = draw(replace(MANY, units=2_000, bots=0.01, bots_silent=True), 6)
    np.testing.assert_array_equal(np.isinf(mute.known_at), bots[mute.unit])


def test_outcomes_are_late_and_the_challengers_bad_ones_soonest():
    traffic = draw(replace(MANY, delay_days=1.0, hurry=(4.0, 16.0)), 7)
    late, on = traffic.known_at - traffic.at, traffic.on[traffic.unit]
    right = traffic.right == 1.0
    assert np.median(late[right]) == pytest.approx(1.0, rel=0.03)
    assert np.median(late[~right & ~on]) == pytest.approx(1 / 4, rel=0.05)
    assert np.median(late[~right & on]) == pytest.approx(1 / 16, rel=0.05)
    assert (late > 0).all()


def test_silence_is_of_few_users_or_of_an_arms_bad_answers():
    traffic = draw(replace(MANY, silent=0.02), 8)
    silent = np.isinf(traffic.known_at)
    assert silent.mean() == pytest.approx(0.02, abs=0.004)
    assert len(np.unique(traffic.unit[silent])) < 0.1 * len(traffic.on)
    traffic = draw(replace(MANY, silent_wrong=(0.0, 0.15), silent_right=(0.04, 0.0)), 9)
    silent, on = np.isinf(traffic.known_at), traffic.on[traffic.unit]
    right = traffic.right == 1.0
    assert silent[on & ~right].mean() == pytest.approx(0.15, abs=0.02)
    assert silent[~on & right].mean() == pytest.approx(0.04, abs=0.01)
    assert not silent[(on & right) | (~on & ~right)].any()
