"""Oracle: statsmodels 0.15.0, statsmodels.stats.multitest.multipletests(P, method=…)[1]."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.multiplicity import benjamini_hochberg, e_bh, e_holm, holm

P = (0.011, 0.04, 0.002, 0.03, 0.6, 0.03, 1.0, 0.0005)
HOLM = (0.066, 0.15, 0.014, 0.15, 1.0, 0.15, 1.0, 0.004)
BH = (
    0.029333333333333333,
    0.05333333333333334,
    0.008,
    0.048,
    0.6857142857142857,
    0.048,
    1.0,
    0.004,
)
BY = (
    0.07972380952380952,
    0.14495238095238094,
    0.02174285714285714,
    0.13045714285714285,
    1.0,
    0.13045714285714285,
    1.0,
    0.01087142857142857,
)
# Benjamini & Hochberg 1995, section 4.1: the thrombolysis trial's fifteen p-values. Their procedure
# claims four at 5%; Bonferroni and Holm claim three.
TRIAL = (
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.3240,
    0.4262,
    0.5719,
    0.6528,
    0.7590,
    1.0,
)
E_VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=8)


def named(values):
    return {f"m{i}": value for i, value in enumerate(values)}


def values(adjusted):
    return list(adjusted.values())


def test_equals_statsmodels():
    np.testing.assert_allclose(values(holm(named(P))), HOLM, rtol=1e-9)
    np.testing.assert_allclose(values(benjamini_hochberg(named(P))), BH, rtol=1e-9)
    by = benjamini_hochberg(named(P), any_dependence=True)
    np.testing.assert_allclose(values(by), BY, rtol=1e-9)


def test_the_published_trial():
    assert sum(p <= 0.05 for p in values(benjamini_hochberg(named(TRIAL)))) == 4
    assert sum(p <= 0.05 for p in values(holm(named(TRIAL)))) == 3


def test_names_and_their_order_stay():
    assert list(holm({"b": 0.5, "a": 0.01})) == ["b", "a"]
    assert holm({"b": 0.5, "a": 0.01}) == {"b": 0.5, "a": 0.02}
    assert holm({}) == benjamini_hochberg({}) == e_holm({}) == e_bh({}) == {}
    assert holm({"a": 0.3}) == benjamini_hochberg({"a": 0.3}) == {"a": 0.3}


@given(E_VALUES)
@settings(max_examples=100, deadline=None)
def test_e_holm_is_the_closure_of_the_mean(e):
    """Written out: the smallest mean over every set of metrics that holds this one."""
    everything = range(len(e))
    sets = [s for n in everything for s in itertools.combinations(everything, n + 1)]
    slow = [min(np.mean([e[j] for j in s]) for s in sets if i in s) for i in everything]
    np.testing.assert_allclose(values(e_holm(named(e))), slow, rtol=1e-9, atol=1e-12)


@given(E_VALUES)
@settings(max_examples=100, deadline=None)
def test_e_holm_claims_whatever_holm_claims_of_their_reciprocals(e):
    as_p = {name: min(1 / value, 1.0) if value else 1.0 for name, value in named(e).items()}
    for name, p in holm(as_p).items():
        if p < 1.0:
            assert e_holm(named(e))[name] >= 1 / p - 1e-9 / p


@given(E_VALUES, st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=100, deadline=None)
def test_e_bh_claims_what_the_procedure_claims(e, level):
    descending = sorted(e, reverse=True)
    bars = [len(e) / (k * level) for k in range(1, len(e) + 1)]
    assume(not np.isclose(descending, bars, rtol=1e-9).any())
    most = max((k for k, bar in enumerate(bars, 1) if descending[k - 1] >= bar), default=0)
    claimed = [value for value, p in zip(e, values(e_bh(named(e))), strict=True) if p <= level]
    assert sorted(claimed, reverse=True) == descending[:most]


def test_families_of_true_nulls_keep_their_level():
    """Correlated normals, ten metrics without effect: any claim in at most 5% of 4,000 families."""
    random = np.random.default_rng(2)
    shared = random.normal(size=(4_000, 1))
    z = np.sqrt(0.5) * shared + np.sqrt(0.5) * random.normal(size=(4_000, 10))
    p = 2 * stats.norm.sf(np.abs(z))
    e = np.exp(1.5 * z - 1.5**2 / 2)
    claims = {"holm": 0, "e_holm": 0, "e_bh": 0}
    for ps, es in zip(p, e, strict=True):
        claims["holm"] += min(values(holm(named(ps)))) <= 0.05
        claims["e_holm"] += max(values(e_holm(named(es)))) >= 20
        claims["e_bh"] += min(values(e_bh(named(es)))) <= 0.05
    assert max(claims.values()) / 4_000 <= 0.05
    assert claims["holm"] / 4_000 > 0.02


def test_evidence_without_bounds_is_defined():
    assert e_holm({"a": float("inf"), "b": 0.0}) == {"a": float("inf"), "b": 0.0}
    assert e_bh({"a": float("inf"), "b": 0.0}) == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_p_value_is_refused(value):
    for adjust in (holm, benjamini_hochberg):
        with pytest.raises(ExperimentError, match="p-value of 'latency'"):
            adjust({"latency": value})


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_what_is_no_e_value_is_refused(value):
    for adjust in (e_holm, e_bh):
        with pytest.raises(ExperimentError, match="e-value of 'latency'"):
            adjust({"latency": value})
