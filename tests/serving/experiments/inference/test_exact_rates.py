"""Oracles: published tables, scipy, and the score found by maximising likelihoods."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from data.errors import ExperimentError
from serving.experiments.inference.exact_rates import Rates, rate_difference, score_interval

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
# The PROGRESS trial (Reynes et al. 2010) by many methods; carried over from the tests of
# diff-binom-confint 0.1.0 (PyPI).
PROGRESS = Rates(84, 101, 89, 105)
PROGRESS_SCORE, PROGRESS_CHAN_ZHANG = (-0.1191, 0.0860), (-0.1227, 0.0869)


def slow_score(delta, rates):
    """The score with the champion's rate that maximises the likelihood, searched for.

    The likelihood is concave, so its maximum is where its slope changes sign.
    """
    x1, n1 = rates.challenger_hits, rates.challenger_units
    x0, n0 = rates.champion_hits, rates.champion_units
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


def masses(n1, n0, p1, p0):
    return np.outer(
        stats.binom.pmf(np.arange(n1 + 1), n1, p1), stats.binom.pmf(np.arange(n0 + 1), n0, p0)
    )


def coverage(interval, n1, n0, rates):
    """Least and mean share of outcomes, by probability, whose interval holds the difference."""
    ends = np.array([[interval(Rates(a, n1, b, n0)) for b in range(n0 + 1)] for a in range(n1 + 1)])
    covers = []
    for p1, p0 in itertools.product(rates, repeat=2):
        inside = (ends[..., 0] <= p1 - p0 + 1e-12) & (p1 - p0 - 1e-12 <= ends[..., 1])
        covers.append(masses(n1, n0, p1, p0)[inside].sum())
    return min(covers), np.mean(covers)


def exact(rates):
    found = rate_difference(rates, alpha=0.05)
    return found.low, found.high


def score(rates):
    return score_interval(rates, alpha=0.05)


@pytest.mark.parametrize(("counts", "published"), NEWCOMBE.items())
def test_the_score_interval_of_newcombes_table(counts, published):
    assert score(Rates(*counts)) == pytest.approx(published, abs=0.5e-4)


def test_the_score_interval_of_miettinen_and_nurminens_own_example():
    """Statist. Med. 4 (1985), example 5: 0 of 10 against 0 of 20, to all their digits."""
    assert score(Rates(0, 10, 0, 20)) == pytest.approx((-0.16576023, 0.28438134), abs=1e-8)


@pytest.mark.parametrize(
    "counts", [(56, 70, 48, 80), (9, 10, 3, 10), (17, 43, 22, 91), (3, 29, 6, 36), (1, 5, 4, 6)]
)
def test_the_score_interval_ends_where_the_searched_likelihood_says(counts):
    low, high = score(Rates(*counts))
    bound = stats.norm.isf(0.025)
    slow = [
        optimize.brentq(
            lambda delta, level=level: slow_score(delta, Rates(*counts)) - level,
            end - 0.01,
            end + 0.01,
            xtol=1e-14,
        )
        for end, level in ((low, bound), (high, -bound))
    ]
    assert (low, high) == pytest.approx(slow, abs=1e-9)


def test_both_intervals_of_a_published_trial():
    assert score(PROGRESS) == pytest.approx(PROGRESS_SCORE, abs=0.5e-4)
    assert exact(PROGRESS) == pytest.approx(PROGRESS_CHAN_ZHANG, abs=0.5e-4)


@pytest.mark.parametrize("rates", [Rates(4, 5, 1, 4), Rates(2, 6, 2, 3), Rates(0, 4, 3, 5)])
def test_the_exact_end_is_where_the_worst_tail_reaches_half_the_level(rates):
    """Outcome by outcome, with the searched likelihood, over a fine grid of the champion's rate."""
    n1, n0 = rates.challenger_units, rates.champion_units

    def tail(delta):
        seen, worst = slow_score(delta, rates), 0.0
        outcomes = itertools.product(range(n1 + 1), range(n0 + 1))
        higher = [
            (a, b) for a, b in outcomes if slow_score(delta, Rates(a, n1, b, n0)) >= seen - 1e-9
        ]
        for p0 in np.linspace(max(0.0, -delta), min(1.0, 1.0 - delta), 2_001):
            first = stats.binom.pmf([a for a, _ in higher], n1, p0 + delta)
            second = stats.binom.pmf([b for _, b in higher], n0, p0)
            worst = max(worst, float(first @ second))
        return worst

    low = rate_difference(rates, alpha=0.1).low
    assert tail(low - 1e-4) <= 0.05 + 1e-6
    assert tail(low + 1e-4) > 0.05 - 1e-6
    assert tail(low + 1e-4) - tail(low - 1e-4) > 0


@pytest.mark.parametrize(("n1", "n0"), [(5, 5), (8, 6)])
def test_the_exact_interval_never_covers_less_than_its_level(n1, n0):
    """No simulation: every outcome with its probability, over a grid of rates."""
    least, _ = coverage(exact, n1, n0, np.linspace(0.01, 0.99, 34))
    assert least >= 0.95


def test_the_score_interval_covers_its_level_on_average_but_not_everywhere():
    least, mean = coverage(score, 15, 15, np.linspace(0.04, 0.96, 24))
    assert mean >= 0.95
    assert 0.92 <= least < 0.95
    assert coverage(score, 5, 5, np.linspace(0.01, 0.99, 34))[0] < 0.92


def test_boschloos_p_keeps_its_level_whatever_the_rate():
    """Every outcome of 7 against 6 units with its probability; Boschloo 1970."""
    p = np.array(
        [[rate_difference(Rates(a, 7, b, 6), alpha=0.05).p for b in range(7)] for a in range(8)]
    )
    assert p[6, 1] == pytest.approx(stats.boschloo_exact([[6, 1], [1, 5]]).pvalue, abs=1e-12)
    for rate in np.linspace(0.02, 0.98, 49):
        assert masses(7, 6, rate, rate)[p <= 0.05].sum() <= 0.05 + 1e-6


@given(st.integers(1, 12), st.integers(1, 12), st.data())
@settings(max_examples=30, deadline=None)
def test_an_interval_holds_the_estimate_and_turns_with_the_arms(n1, n0, data):
    rates = Rates(data.draw(st.integers(0, n1)), n1, data.draw(st.integers(0, n0)), n0)
    for interval in (score, exact):
        low, high = interval(rates)
        assert -1.0 <= low <= rates.estimate <= high <= 1.0
        assert low < high
        assert interval(rates.turned) == pytest.approx((-high, -low), abs=1e-10)


def test_one_unit_each_and_rates_without_spread_have_an_answer():
    found = rate_difference(Rates(1, 1, 0, 1), alpha=0.05)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.p == pytest.approx(0.5, abs=1e-9)
    # No outcome is higher, and (p + d)(1 - p) is greatest at p = (1 - d)/2: ((1 + d)/2)² = 2.5%.
    assert found.low == pytest.approx(2 * np.sqrt(0.025) - 1, abs=1e-6)
    same = rate_difference(Rates(3, 3, 4, 4), alpha=0.05)
    assert same.p == pytest.approx(1.0)
    assert same.low < 0.0 < same.high
    many = score_interval(Rates(500_000_000, 10**9, 499_000_000, 10**9), alpha=0.05)
    assert many == pytest.approx((0.000956, 0.001044), abs=1e-6)


@pytest.mark.parametrize("counts", [(1, 0, 1, 2), (3, 2, 1, 2), (-1, 2, 1, 2), (1, 2, 0, 0)])
def test_rates_that_are_none_are_refused(counts):
    with pytest.raises(ExperimentError, match="no rate"):
        Rates(*counts)


def test_other_bad_input_is_refused():
    with pytest.raises(ExperimentError, match="too large"):
        rate_difference(Rates(10, 10_000, 10, 10_000), alpha=0.05)
    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(ExperimentError, match="alpha="):
            rate_difference(Rates(1, 2, 1, 2), alpha=alpha)
        with pytest.raises(ExperimentError, match="alpha="):
            score_interval(Rates(1, 2, 1, 2), alpha=alpha)
