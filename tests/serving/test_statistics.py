import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from data.errors import ExperimentError
from serving.experiments.statistics import (
    best_rho,
    confidence_sequence,
    paired_bootstrap,
    pseudo_outcomes,
    welch,
)

BURN_IN = 50
UNITS = 2_000
SIMULATIONS = 2_000


def slow_sequence(challenger, reward, share, alpha, units, burn_in):
    """The paper's formulas, written out unit by unit."""
    rho2 = best_rho(units, alpha) ** 2
    guesses, rows = [], []
    for t, (on, value) in enumerate(zip(challenger, reward, strict=True), start=1):
        past = list(zip(challenger[: t - 1], reward[: t - 1], strict=True))
        ons = [r for a, r in past if a]
        offs = [r for a, r in past if not a]
        f1 = (0.5 + sum(ons)) / (1 + len(ons))
        f0 = (0.5 + sum(offs)) / (1 + len(offs))
        correction = (value - f1) / share if on else -(value - f0) / (1 - share)
        guesses.append(f1 - f0 + correction)
        mean = sum(guesses) / t
        variance = sum((g - mean) ** 2 for g in guesses) / max(t - 1, 1)
        radius = np.sqrt(
            variance * 2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / alpha)
        )
        seen = sum(challenger[:t])
        early = min(seen, t - seen) < burn_in
        low, high = (-1, 1) if early else (max(mean - radius, -1), min(mean + radius, 1))
        rows.append((mean, low, high))
    return np.asarray(rows).T


def simulate(seed, champion, challenger, *, share=0.5, simulations=SIMULATIONS, units=UNITS):
    """Bernoulli rewards of many experiments at once, in pieces that fit in memory."""
    random = np.random.default_rng(seed)
    for start in range(0, simulations, 250):
        shape = (min(250, simulations - start), units)
        on = random.random(shape) < share
        yield on, (random.random(shape) < np.where(on, challenger, champion)).astype(np.float64)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equals_the_formulas_written_out_slowly(share):
    random = np.random.default_rng(3)
    on = random.random(300) < share
    reward = random.random(300)
    fast = confidence_sequence(
        on, reward, challenger_share=share, alpha=0.05, tuned_for_units=200, burn_in=5
    )
    mean, low, high = slow_sequence(on, reward, share, 0.05, 200, 5)
    np.testing.assert_allclose(fast.estimate, mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fast.low, low, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fast.high, high, rtol=0, atol=1e-9)
    assert (fast.low > -1).any()


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.5), (0.8, 0.5), (0.7, 0.2)])
def test_peeking_at_every_unit_keeps_the_level(rate, share):
    """2,000 A/A experiments of 2,000 units, looked at after each unit from 50 units per arm on."""
    excluded = 0
    for on, reward in simulate(11, rate, rate, share=share):
        found = confidence_sequence(
            on, reward, challenger_share=share, alpha=0.05, tuned_for_units=500, burn_in=BURN_IN
        )
        excluded += int(((found.low > 0) | (found.high < 0)).any(axis=-1).sum())
    assert excluded / SIMULATIONS <= 0.05


def test_peeking_with_a_fixed_size_interval_does_not_keep_it():
    """Why the sequence is needed: each look at the same experiments is taken for the last."""
    excluded = 0
    for on, reward in simulate(11, 0.7, 0.7, simulations=250):
        guesses = pseudo_outcomes(on, reward, challenger_share=0.5)
        n = np.arange(1, UNITS + 1)
        mean = np.cumsum(guesses, axis=-1) / n
        spread = np.sqrt(np.maximum(np.cumsum(guesses**2, axis=-1) / n - mean**2, 0) / n)
        outside = np.abs(mean) > 1.96 * spread
        excluded += int(outside[:, 2 * BURN_IN :].any(axis=-1).sum())
    assert excluded / 250 > 0.2


def test_a_true_lift_is_covered_and_found():
    covered, found = 0, 0
    for on, reward in simulate(5, 0.6, 0.72, simulations=500):
        sequence = confidence_sequence(
            on, reward, challenger_share=0.5, alpha=0.05, tuned_for_units=1_000, burn_in=BURN_IN
        )
        inside = (sequence.low <= 0.12) & (sequence.high >= 0.12)
        covered += int(inside.all(axis=-1).sum())
        found += int((sequence.low[:, -1] > 0).sum())
    assert covered / 500 >= 0.95
    assert found / 500 >= 0.9


def test_the_running_intersection_only_narrows():
    on, reward = next(simulate(9, 0.6, 0.7, simulations=5))
    arguments = {"challenger_share": 0.5, "alpha": 0.05, "tuned_for_units": 500, "burn_in": 30}
    plain = confidence_sequence(on, reward, **arguments)
    narrowed = confidence_sequence(on, reward, **arguments, running_intersection=True)
    assert (np.diff(narrowed.low, axis=-1) >= 0).all()
    assert (np.diff(narrowed.high, axis=-1) <= 0).all()
    assert (narrowed.high - narrowed.low <= plain.high - plain.low + 1e-12).all()
    assert (narrowed.high - narrowed.low < plain.high - plain.low - 1e-6).any()


@pytest.mark.parametrize(("units", "alpha"), [(100, 0.05), (5_000, 0.01), (1, 0.2)])
def test_rho_makes_the_interval_narrowest_where_it_is_tuned(units, alpha):
    def width(log_rho: float) -> float:
        x = units * np.exp(2 * log_rho)
        return float((x + 1) / x * (np.log(x + 1) - 2 * np.log(alpha)))

    best = optimize.minimize_scalar(
        width, bounds=(-12, 5), method="bounded", options={"xatol": 1e-9}
    )
    assert best_rho(units, alpha) == pytest.approx(np.exp(best.x), rel=1e-4)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_pseudo_outcome_knows_only_the_past(seed):
    random = np.random.default_rng(seed)
    on, reward = random.random(40) < 0.5, random.random(40)
    before = pseudo_outcomes(on, reward, challenger_share=0.5)
    changed = reward.copy()
    changed[25:] = random.random(15)
    after = pseudo_outcomes(on, changed, challenger_share=0.5)
    np.testing.assert_array_equal(before[:25], after[:25])
    assert not np.array_equal(before[25:], after[25:])


def test_nothing_is_said_before_the_burn_in():
    on = np.arange(200) % 2 == 0
    found = confidence_sequence(
        on, np.ones(200), challenger_share=0.5, alpha=0.05, tuned_for_units=100, burn_in=60
    )
    assert (found.low[:119] == -1).all()
    assert found.low[119] > -1


@pytest.mark.parametrize("reward", [np.array([0.5, np.nan]), np.array([0.5, 1.2])])
def test_rewards_out_of_range_are_refused(reward):
    with pytest.raises(ExperimentError, match="outside 0"):
        confidence_sequence(
            np.array([True, False]),
            reward,
            challenger_share=0.5,
            alpha=0.05,
            tuned_for_units=10,
            burn_in=1,
        )


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_an_arm_without_a_share_is_refused(share):
    with pytest.raises(ExperimentError, match="share"):
        pseudo_outcomes(np.array([True]), np.array([1.0]), challenger_share=share)


def test_welch_and_the_sequence_agree_on_the_estimate_and_welch_is_narrower():
    on, reward = next(simulate(21, 0.6, 0.7, simulations=1))
    on, reward = on[0], reward[0]
    fixed = welch(on, reward, alpha=0.05)
    sequence = confidence_sequence(
        on, reward, challenger_share=0.5, alpha=0.05, tuned_for_units=UNITS, burn_in=BURN_IN
    )
    assert sequence.estimate[-1] == pytest.approx(fixed.estimate, abs=0.01)
    assert sequence.low[-1] < fixed.low < fixed.high < sequence.high[-1]
    with pytest.raises(ExperimentError, match="two in each"):
        welch(np.array([True, False, False]), np.ones(3), alpha=0.05)


def test_paired_bootstrap_agrees_with_the_normal_interval():
    random = np.random.default_rng(2)
    champion = random.random(400)
    challenger = champion + random.normal(0.05, 0.1, 400)
    found = paired_bootstrap(champion, challenger, alpha=0.05, draws=2_000, seed=1)
    differences = challenger - champion
    half = 1.96 * differences.std(ddof=1) / 20
    assert found.estimate == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.estimate - half, abs=0.002)
    assert found.high == pytest.approx(found.estimate + half, abs=0.002)
    with pytest.raises(ExperimentError, match="same items"):
        paired_bootstrap(champion, challenger[:3], alpha=0.05, draws=10, seed=1)
