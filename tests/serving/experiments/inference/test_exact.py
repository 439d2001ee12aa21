"""Oracles: rearrangements counted by hand, and scipy's beta and binomial distributions."""

import itertools

import numpy as np
import pytest
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.exact import (
    method_for,
    permutation_test,
    sign_test,
)


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
    assert method_for("rate", 99) == "exact_rates"
    assert method_for("mean", 0) == "permutation"
    assert method_for("preference", 20) == "sign_test"
    assert method_for("rate", 100) == method_for("mean", 10**9) == "sequence"
    assert method_for("mean", 99, exact_below=50) == "sequence"
    with pytest.raises(ExperimentError, match="outcome='speed'"):
        method_for("speed", 5)
    with pytest.raises(ExperimentError, match="sizes"):
        method_for("rate", -1)


def test_other_bad_input_is_refused():
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
