"""Oracles: published tables, scipy, and the score interval found by maximising likelihoods."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from data.errors import ExperimentError
from serving.experiments.inference.exact import (
    method_for,
    permutation_test,
    rate_difference,
    sign_test,
)

# Newcombe, Statist. Med. 17 (1998), table II, method 6 (Miettinen & Nurminen), 95%.
NEWCOMBE = {
    (56, 70, 48, 80): (0.0528, 0.3382),
    (9, 10, 3, 10): (0.1700, 0.8406),
    (6, 7, 2, 7): (0.0342, 0.8534),
    (5, 56, 0, 29): (-0.0326, 0.1933),
    (0, 10, 0, 20): (-0.1658, 0.2844),
    (0, 10, 0, 10): (-0.2879, 0.2879),
    (10, 10, 0, 20): (0.7156, 1.0),
    (10, 10, 0, 10): (0.6636, 1.0),
}


def slow_score(delta, x1, n1, x0, n0):
    """The score with the champion's rate that maximises the likelihood, searched for.

    The likelihood is concave, so its maximum is where its slope changes sign.
    """
    low, high = max(0.0, -delta), min(1.0, 1.0 - delta)

    def slope(rate: float) -> float:
        other = rate + delta
        return x1 / other - (n1 - x1) / (1 - other) + x0 / rate - (n0 - x0) / (1 - rate)

    edge = 1e-14 * (high - low)
    if slope(low + edge) <= 0.0:
        rate = low
    elif slope(high - edge) >= 0.0:
        rate = high
    else:
        rate = optimize.brentq(slope, low + edge, high - edge, xtol=1e-15, rtol=1e-15)
    other, n = rate + delta, n1 + n0
    variance = (other * (1 - other) / n1 + rate * (1 - rate) / n0) * n / (n - 1)
    return (x1 / n1 - x0 / n0 - delta) / np.sqrt(variance)


@pytest.mark.parametrize(("counts", "published"), NEWCOMBE.items())
def test_the_interval_of_newcombes_table(counts, published):
    found = rate_difference(*counts, alpha=0.05)
    assert (found.low, found.high) == pytest.approx(published, abs=0.5e-4)


def test_the_interval_of_miettinen_and_nurminens_own_example():
    """Statist. Med. 4 (1985), example 5: 0 of 10 against 0 of 20, to all their digits."""
    found = rate_difference(0, 10, 0, 20, alpha=0.05)
    assert (found.low, found.high) == pytest.approx((-0.16576023, 0.28438134), abs=1e-8)


@pytest.mark.parametrize(
    "counts", [(56, 70, 48, 80), (9, 10, 3, 10), (17, 43, 22, 91), (3, 29, 6, 36), (1, 5, 4, 6)]
)
def test_the_interval_ends_where_the_searched_likelihood_says(counts):
    found = rate_difference(*counts, alpha=0.05)
    bound = stats.norm.isf(0.025)
    low = optimize.brentq(
        lambda d: slow_score(d, *counts) - bound, found.low - 0.01, found.low + 0.01, xtol=1e-14
    )
    high = optimize.brentq(
        lambda d: slow_score(d, *counts) + bound, found.high - 0.01, found.high + 0.01, xtol=1e-14
    )
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_estimate_and_turns_with_the_arms(n1, n0, data):
    x1, x0 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n0))
    there, back = (
        rate_difference(x1, n1, x0, n0, alpha=0.1),
        rate_difference(x0, n0, x1, n1, alpha=0.1),
    )
    assert -1.0 <= there.low <= there.estimate <= there.high <= 1.0
    assert there.low < there.high
    assert (-there.low, -there.high) == pytest.approx((back.high, back.low), abs=1e-10)
    assert there.p == pytest.approx(back.p, abs=1e-6)


@pytest.mark.parametrize(("n1", "n0"), [(15, 15), (10, 25)])
def test_the_coverage_of_the_interval_added_up_over_all_outcomes(n1, n0):
    """No simulation: every outcome with its probability, over a grid of rates."""
    pairs = list(itertools.product(range(n1 + 1), range(n0 + 1)))
    ends = np.array([interval(x1, n1, x0, n0) for x1, x0 in pairs]).reshape(n1 + 1, n0 + 1, 2)
    covers = []
    for p1, p0 in itertools.product(np.linspace(0.04, 0.96, 24), repeat=2):
        weights = np.outer(
            stats.binom.pmf(np.arange(n1 + 1), n1, p1), stats.binom.pmf(np.arange(n0 + 1), n0, p0)
        )
        inside = (ends[..., 0] <= p1 - p0) & (p1 - p0 <= ends[..., 1])
        covers.append(weights[inside].sum())
    assert np.mean(covers) >= 0.95
    assert np.min(covers) >= 0.92


def interval(x1, n1, x0, n0):
    found = rate_difference(x1, n1, x0, n0, alpha=0.05)
    return found.low, found.high


def test_boschloos_p_keeps_its_level_whatever_the_rate():
    """Every outcome of 12 against 9 units with its probability; Boschloo 1970."""
    p = np.array(
        [[rate_difference(a, 12, b, 9, alpha=0.05).p for b in range(10)] for a in range(13)]
    )
    assert p[11, 3] == pytest.approx(stats.boschloo_exact([[11, 3], [1, 6]]).pvalue, abs=1e-12)
    for rate in np.linspace(0.02, 0.98, 49):
        weights = np.outer(
            stats.binom.pmf(np.arange(13), 12, rate), stats.binom.pmf(np.arange(10), 9, rate)
        )
        assert weights[p <= 0.05].sum() <= 0.05 + 1e-6


def test_every_rearrangement_counted_by_hand():
    champion, challenger = np.array([1.0, 2.0, 4.0]), np.array([3.0, 7.0, 9.0, 5.0])
    everything = np.concatenate([champion, challenger])
    means = []
    for chosen in itertools.combinations(range(7), 4):
        on = np.isin(np.arange(7), chosen)
        means.append(everything[on].mean() - everything[~on].mean())
    seen = challenger.mean() - champion.mean()
    above = np.mean(np.asarray(means) >= seen - 1e-12)
    below = np.mean(np.asarray(means) <= seen + 1e-12)
    found = permutation_test(champion, challenger, draws=1_000, seed=0)
    assert found.exact
    assert found.estimate == pytest.approx(seen, abs=1e-12)
    assert found.p == pytest.approx(min(2 * min(above, below), 1.0), abs=1e-12)


def test_paired_rearrangements_flip_signs():
    """All signs of one size: the p-value is that of the sign test, 2 * (1 + 6) / 64."""
    champion = np.zeros(6)
    challenger = np.array([1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    found = permutation_test(champion, challenger, draws=1_000, seed=0, paired=True)
    assert found.exact
    assert found.p == pytest.approx(2 * 7 / 64, abs=1e-12)
    assert found.p == pytest.approx(sign_test(5, 1, alpha=0.05).p, abs=1e-12)


def test_many_units_are_drawn_the_same_each_time_and_near_welch():
    random = np.random.default_rng(6)
    champion, challenger = random.normal(0, 1, 300), random.normal(0.2, 1, 280)
    found = permutation_test(champion, challenger, draws=5_000, seed=3)
    assert found == permutation_test(champion, challenger, draws=5_000, seed=3)
    assert not found.exact
    welch = stats.ttest_ind(challenger, champion, equal_var=False).pvalue
    assert found.p == pytest.approx(welch, abs=0.02)


def test_samples_of_one_and_without_spread_have_an_answer():
    pairs = permutation_test(np.array([1.0, 2.0]), np.array([5.0, 5.0]), draws=100, seed=0)
    assert (pairs.exact, pairs.p) == (True, pytest.approx(1 / 3))
    assert permutation_test(np.ones(8), np.ones(9), draws=100, seed=0).p == 1.0
    found = rate_difference(1, 1, 0, 1, alpha=0.05)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.p == pytest.approx(0.5, abs=1e-9)
    assert rate_difference(3, 3, 4, 4, alpha=0.05).p == pytest.approx(1.0)


def test_clopper_and_pearsons_interval():
    """4 of 10 by the quantiles of the beta distribution (Biometrika 26, 1934)."""
    found = sign_test(4, 6, 5, alpha=0.05)
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 4, 7), abs=1e-9)
    assert found.high == pytest.approx(stats.beta.ppf(0.975, 5, 6), abs=1e-9)
    assert (found.low, found.high) == pytest.approx((0.121552258120, 0.737621923393), abs=1e-9)
    assert found.p == pytest.approx(stats.binomtest(4, 10).pvalue)
    assert (found.share, found.net) == (0.4, -2 / 15)


def test_preferences_without_a_decision():
    found = sign_test(0, 0, 7, alpha=0.05)
    assert (found.share, found.low, found.high, found.p, found.net) == (0.5, 0.0, 1.0, 1.0, 0.0)
    assert sign_test(0, 0, alpha=0.05).net == 0.0
    many = sign_test(500_000_500, 499_999_500, alpha=0.05)
    assert 0.4 < many.low < many.share < many.high < 0.6


def test_which_method_a_sample_gets():
    assert method_for("rate", 99) == "boschloo"
    assert method_for("mean", 0) == "permutation"
    assert method_for("preference", 20) == "sign_test"
    assert method_for("rate", 100) == method_for("mean", 10**9) == "sequence"
    assert method_for("mean", 99, exact_below=50) == "sequence"
    with pytest.raises(ExperimentError, match="outcome='speed'"):
        method_for("speed", 5)
    with pytest.raises(ExperimentError, match="sizes"):
        method_for("rate", -1)


@pytest.mark.parametrize("counts", [(1, 0, 1, 2), (3, 2, 1, 2), (-1, 2, 1, 2)])
def test_rates_that_are_none_are_refused(counts):
    with pytest.raises(ExperimentError, match="no rate"):
        rate_difference(*counts, alpha=0.05)


def test_other_bad_input_is_refused():
    with pytest.raises(ExperimentError, match="too large"):
        rate_difference(10, 10_000, 10, 10_000, alpha=0.05)
    good = np.ones(3)
    for bad in (
        np.array([]),
        good[:1],
        np.array([1, np.nan]),
        np.array([1, np.inf]),
        np.ones((2, 2)),
    ):
        with pytest.raises(ExperimentError, match="champion's values"):
            permutation_test(bad, good, draws=10, seed=0)
        with pytest.raises(ExperimentError, match="challenger's values"):
            permutation_test(good, bad, draws=10, seed=0)
    with pytest.raises(ExperimentError, match="same items"):
        permutation_test(good, np.ones(4), draws=10, seed=0, paired=True)
    with pytest.raises(ExperimentError, match="draws=0"):
        permutation_test(good, good, draws=0, seed=0)
    with pytest.raises(ExperimentError, match="losses=-1"):
        sign_test(1, -1, alpha=0.05)
    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(ExperimentError, match="alpha="):
            sign_test(1, 1, alpha=alpha)
        with pytest.raises(ExperimentError, match="alpha="):
            rate_difference(1, 2, 1, 2, alpha=alpha)
