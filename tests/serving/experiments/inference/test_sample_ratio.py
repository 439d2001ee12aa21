"""Oracles: mpmath's log-gammas, scipy's beta-binomial, and the authors' own ssrm-test 0.1.5 (PyPI).

What ssrm-test said (numpy 1.26.4):
    from ssrm_test import ssrm_test as oracle
    prior = dict(dirichlet_probability=np.array(shares), dirichlet_concentration=500.0)
    oracle.sequential_bayes_factors(np.array(BATCHES), np.array(shares), **prior)
    oracle.sequential_p_values(np.array(BATCHES), np.array(shares), **prior)
"""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from data.errors import ExperimentError
from serving.experiments.inference.sample_ratio import (
    concentration_for,
    fixed_look_p,
    log_e_value,
    ratio_sequence,
    running_counts,
    sample_ratio_p,
)

HALF = (0.5, 0.5)
BATCHES = [[20, 35, 45], [30, 35, 60], [18, 41, 38], [25, 20, 50], [40, 28, 61]]
BATCH_E = [
    0.9257285542016269,
    0.8133416481109484,
    1.4008560790553282,
    0.949942625167268,
    2.521548370576223,
]
BATCH_P = [1.0, 1.0, 0.7138492061756646, 0.7138492061756646, 0.3965817240188339]
# Nine units of the first arm, three of the second, forty of the first; concentration 50.
UNIT_P = {
    0: 1.0,
    8: 0.5392830141129197,
    11: 0.5392830141129197,
    30: 0.02401447772735137,
    51: 2.7212609791283284e-05,
}


def test_equals_the_authors_library():
    found = ratio_sequence(np.cumsum(BATCHES, axis=0), shares=(0.2, 0.3, 0.5), concentration=500.0)
    np.testing.assert_allclose(np.exp(found.log_e), BATCH_E, rtol=1e-9)
    np.testing.assert_allclose(found.p, BATCH_P, rtol=1e-9)
    np.testing.assert_array_equal(found.units, [100, 225, 322, 417, 546])
    counts = running_counts(np.repeat([0, 1, 0], [9, 3, 40]), arms=2)
    by_unit = ratio_sequence(counts, shares=HALF, concentration=50.0)
    for place, p in UNIT_P.items():
        assert by_unit.p[place] == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize(
    ("counts", "shares", "concentration"),
    [
        ((1, 0), HALF, 7.0),
        ((50_600, 49_400), HALF, 6_571.4),
        ((900, 80, 20), (0.9, 0.06, 0.04), 250.0),
        ((5_001_000_000, 4_999_000_000), HALF, 6_571.4),
    ],
)
def test_equals_the_closed_form_at_fifty_digits(counts, shares, concentration):
    with mpmath.workdps(50):
        prior = [mpmath.mpf(concentration) * mpmath.mpf(share) for share in shares]
        exact = mpmath.loggamma(sum(prior)) - mpmath.loggamma(sum(prior) + sum(counts))
        for before, units, share in zip(prior, counts, shares, strict=True):
            exact += mpmath.loggamma(before + units) - mpmath.loggamma(before)
            exact -= units * mpmath.log(share)
        found = float(log_e_value(counts, shares=shares, concentration=concentration))
        tolerance = 1e-9 if sum(counts) < 1e6 else 1e-3
        assert found == pytest.approx(float(exact), abs=tolerance)


def test_two_arms_are_a_beta_binomial_against_a_binomial():
    hits = np.arange(301)
    mixture = stats.betabinom(300, 0.3 * 80, 0.7 * 80).logpmf(hits)
    intended = stats.binom(300, 0.3).logpmf(hits)
    found = log_e_value(
        np.stack([hits, 300 - hits], axis=-1), shares=(0.3, 0.7), concentration=80.0
    )
    np.testing.assert_allclose(found, mixture - intended, rtol=0, atol=1e-9)
    # An e-value's expectation is 1 where the shares are as intended.
    assert np.exp(found + intended).sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("arms", [2, 3, 5])
def test_the_concentration_makes_the_alarm_most_sensitive_where_it_is_tuned(arms):
    planned, alpha = 20_000, 0.002

    def bar(log_concentration: float) -> float:
        y = 1.0 + planned / np.exp(log_concentration)
        return float(y / (y - 1) * ((arms - 1) * np.log(y) - 2 * np.log(alpha)))

    best = optimize.minimize_scalar(bar, bounds=(2, 15), method="bounded", options={"xatol": 1e-9})
    found = concentration_for(planned, arms=arms, alpha=alpha)
    assert found == pytest.approx(np.exp(best.x), rel=1e-3)


@pytest.mark.parametrize("shares", [HALF, (0.9, 0.1), (0.5, 0.3, 0.2)])
def test_peeking_after_every_unit_keeps_the_level(shares):
    """4,000 experiments of 2,000 units: the alarm at 5% sounds ever in fewer than 5% of them."""
    random, alarms = np.random.default_rng(4), 0
    concentration = concentration_for(500, arms=len(shares), alpha=0.05)
    for _ in range(16):
        arm = np.searchsorted(np.cumsum(shares)[:-1], random.random((250, 2_000)), side="right")
        found = ratio_sequence(
            running_counts(arm, arms=len(shares)), shares=shares, concentration=concentration
        )
        alarms += int((found.p[:, -1] <= 0.05).sum())
    assert 0.01 < alarms / 4_000 <= 0.05


def test_peeking_with_the_fixed_test_does_not_keep_it():
    """Why the sequence is needed: chi-square at 5%, looked at after every unit from the 100th."""
    random = np.random.default_rng(4)
    counts = running_counts(random.integers(0, 2, (400, 2_000)), arms=2).astype(np.float64)
    units = counts.sum(axis=-1)
    chi_square = (counts[..., 0] - counts[..., 1]) ** 2 / units
    ever = (chi_square[:, 100:] > stats.chi2.isf(0.05, 1)).any(axis=-1)
    assert ever.mean() > 0.25


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.floats(0.5, 500))
@settings(max_examples=50, deadline=None)
def test_the_p_value_never_rises_and_the_order_within_a_look_does_not_matter(arm, concentration):
    shares = (0.2, 0.3, 0.5)
    found = ratio_sequence(
        running_counts(np.asarray(arm), arms=3), shares=shares, concentration=concentration
    )
    assert (np.diff(found.p) <= 0).all()
    assert ((found.p > 0) & (found.p <= 1)).all()
    shuffled = running_counts(np.asarray(arm[::-1]), arms=3)
    last = log_e_value(shuffled[-1], shares=shares, concentration=concentration)
    assert found.log_e[-1] == pytest.approx(float(last), abs=1e-9)


def test_no_unit_is_no_evidence_and_no_look_no_sequence():
    assert float(log_e_value((0, 0), shares=HALF, concentration=9.0)) == pytest.approx(0, abs=1e-12)
    none = ratio_sequence(np.zeros((0, 2)), shares=HALF, concentration=9.0)
    assert none.p.shape == (0,)


def test_sample_ratio_against_scipy_and_across_the_switch():
    assert sample_ratio_p(60, 100, challenger_share=0.5) == pytest.approx(
        stats.binomtest(60, 100, 0.5).pvalue
    )
    assert sample_ratio_p(50, 100, challenger_share=0.5) == 1.0
    exact = stats.binomtest(100_700, 200_000, 0.5).pvalue
    assert sample_ratio_p(100_700, 200_000, challenger_share=0.5) == pytest.approx(exact, rel=0.02)
    assert sample_ratio_p(400, 1_000, challenger_share=0.5) < 1e-9
    with pytest.raises(ExperimentError, match="not a count"):
        sample_ratio_p(0, 0, challenger_share=0.5)
    with pytest.raises(ExperimentError, match="share"):
        sample_ratio_p(1, 2, challenger_share=1.0)


def test_the_fixed_look_of_two_arms_is_binomial_and_of_more_chi_square():
    assert fixed_look_p((40, 60), shares=HALF) == sample_ratio_p(60, 100, challenger_share=0.5)
    # Mendel's peas (1866) at 9 : 3 : 3 : 1, as in many textbooks: chi-square 0.4700, p 0.9254.
    p = fixed_look_p((315, 108, 101, 32), shares=np.array([9, 3, 3, 1]) / 16)
    assert p == pytest.approx(0.92542589510361758, abs=1e-9)


@pytest.mark.parametrize(
    "shares", [(1.0,), (0.5, 0.6), (0.0, 1.0), (-0.5, 1.5), (np.nan, 0.5), (np.inf, 0.5)]
)
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(ExperimentError, match="shares="):
        log_e_value((1,) * len(shares), shares=shares, concentration=1.0)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((1, 2, 3), "one count per arm"),
        (3, "one count per arm"),
        ((-1, 2), "negative"),
        ((np.nan, 2), "missing"),
        ((np.inf, 2), "infinite"),
        ((1e10, 1e10), "more than"),
    ],
)
def test_counts_that_are_none_are_refused(counts, words):
    with pytest.raises(ExperimentError, match=words):
        log_e_value(counts, shares=HALF, concentration=1.0)


def test_other_bad_input_is_refused():
    with pytest.raises(ExperimentError, match="concentration=0"):
        log_e_value((1, 1), shares=HALF, concentration=0.0)
    with pytest.raises(ExperimentError, match="falls"):
        ratio_sequence([[2, 1], [1, 3]], shares=HALF, concentration=1.0)
    with pytest.raises(ExperimentError, match="looks × arms"):
        ratio_sequence([2, 1], shares=HALF, concentration=1.0)
    with pytest.raises(ExperimentError, match="number the arms"):
        running_counts(np.array([0, 2]), arms=2)
    with pytest.raises(ExperimentError, match="some unit"):
        fixed_look_p((0, 0), shares=HALF)
    with pytest.raises(ExperimentError, match="ratio_sequence"):
        fixed_look_p((3, 3, 3), shares=(0.4, 0.3, 0.3))
    for planned, arms, alpha in ((0, 2, 0.05), (10, 1, 0.05), (10, 2, 1.0), (10, 2, np.nan)):
        with pytest.raises(ExperimentError, match=r"planned_units|arms=|alpha="):
            concentration_for(planned, arms=arms, alpha=alpha)
