"""Oracle: statsmodels 0.15.0 (`pip install statsmodels` in an environment of its own), by

    from scipy.optimize import brentq
    from statsmodels.stats.power import NormalIndPower
    power = NormalIndPower().power
    power(0.1, 1000, 0.05, ratio=1, alternative="two-sided")
    brentq(lambda units: power(0.1, units, 0.05, ratio=1) - 0.8, 10, 1e5, xtol=1e-12)
    brentq(lambda effect: power(effect, 5000, 0.05, ratio=1) - 0.8, 1e-3, 1, xtol=1e-14)

where units are the control's, ``ratio`` is challenger / control, and outcomes have the deviation 1.
Its ``solve_power`` finds the same roots to some 1e-5 only: at its own least effect of 5,000 units
its own power is 0.79997.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.planning import (
    detectable_difference,
    detectable_lift,
    duration_days,
    power_at,
    sample_for,
    signal_for,
    variance_of_means,
    variance_of_proportions,
)


def even(ratio):
    return 1 / (1 + ratio), ratio / (1 + ratio)


@pytest.mark.parametrize(
    ("difference", "control", "alpha", "ratio", "alternative", "power"),
    [
        (0.1, 1_000, 0.05, 1.0, "two-sided", 0.6087794846454566),
        (0.02, 3_000, 0.05, 1.0, "two-sided", 0.12105930370579106),
        (0.3, 80, 0.01, 2.0, "two-sided", 0.3501422141685149),
        (0.2, 150, 0.05, 0.5, "greater", 0.4087972197938704),
    ],
)
def test_power_is_that_of_statsmodels(difference, control, alpha, ratio, alternative, power):
    units = control * (1 + ratio)
    variance = variance_of_means(1.0, shares=even(ratio))
    found = power_at(units, difference, variance, alpha=alpha, alternative=alternative)
    assert found == pytest.approx(power, abs=1e-9)


@pytest.mark.parametrize(
    ("difference", "power", "alpha", "ratio", "alternative", "control"),
    [
        (0.1, 0.8, 0.05, 1.0, "two-sided", 1569.7721018652398),
        (0.05, 0.9, 0.01, 1.0, "two-sided", 11903.509733201985),
        (0.3, 0.8, 0.05, 2.0, "two-sided", 130.8143418221034),
        (0.2, 0.8, 0.05, 1.0, "greater", 309.1278616009885),
    ],
)
def test_samples_are_those_of_statsmodels(difference, power, alpha, ratio, alternative, control):
    shares = even(ratio)
    found = sample_for(
        difference,
        variance_of_means(1.0, shares=shares),
        alpha=alpha,
        power=power,
        alternative=alternative,
        shares=shares,
    )
    assert found.total * shares[0] == pytest.approx(control, rel=1e-9)
    assert found.control == np.ceil(control)


def test_the_least_difference_is_that_of_statsmodels():
    found = detectable_difference(10_000, variance_of_means(1.0))
    assert found == pytest.approx(0.05603163574027158, abs=1e-9)


@pytest.mark.parametrize(
    ("alpha", "margin", "rates", "units"),
    [(0.05, 0.10, (0.65, 0.85), 25), (0.05, 0.0, (0.65, 0.85), 55), (0.025, 0.0, (0.65, 0.85), 70)],
)
def test_published_samples_of_proportions(alpha, margin, rates, units):
    """Chow, Shao, Wang, "Sample Size Calculations in Clinical Research" (2008), pages 89 and 90.

    As powerandsamplesize.com carries them: 25 for non-inferiority, 55 and 70 for one-sided 5% and
    2.5%.
    """
    found = sample_for(
        rates[1] - rates[0],
        variance_of_proportions(*rates),
        alpha=alpha,
        alternative="greater",
        margin=margin,
    )
    assert found.control == found.challenger == units


def test_the_planned_sample_has_the_planned_power_in_welchs_test():
    variance = variance_of_means(1.0, 2.0, shares=(0.3, 0.7))
    plan = sample_for(0.4, variance, power=0.8, shares=(0.3, 0.7))
    random = np.random.default_rng(1)
    control = random.normal(0.0, 1.0, (4_000, plan.control))
    challenger = random.normal(0.4, 2.0, (4_000, plan.challenger))
    found = stats.ttest_ind(challenger, control, axis=1, equal_var=False).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)


@given(
    st.floats(1e-3, 10.0),
    st.floats(1e-3, 1e3),
    st.floats(0.001, 0.3),
    st.floats(0.5, 0.99),
    st.sampled_from(["two-sided", "greater", "less"]),
)
@settings(max_examples=60, deadline=None)
def test_sample_difference_and_power_are_one_equation(size, variance, alpha, power, alternative):
    difference = -size if alternative == "less" else size
    settings_ = {"alpha": alpha, "alternative": alternative}
    total = sample_for(difference, variance, **settings_, power=power).total
    assert power_at(total, difference, variance, **settings_) == pytest.approx(power, abs=1e-9)
    least = detectable_difference(total, variance, **settings_, power=power)
    assert least == pytest.approx(size, rel=1e-9)


@given(st.floats(0.01, 0.95), st.integers(2_000, 10_000_000))
@settings(max_examples=60, deadline=None)
def test_the_least_lift_of_a_proportion_needs_just_these_units(rate, units):
    try:
        lift = detectable_lift(units, rate)
    except ExperimentError:
        assert units < 20_000
        return
    total = sample_for(lift, variance_of_proportions(rate, rate + lift)).total
    assert total == pytest.approx(units, rel=1e-6)


def test_a_lift_that_few_units_cannot_find_is_refused():
    with pytest.raises(ExperimentError, match="collect more units"):
        detectable_lift(10, 0.5)


def test_a_third_arm_takes_its_share_of_the_traffic():
    alone = sample_for(0.1, variance_of_means(1.0)).total
    shares = (0.4, 0.4)
    with_third = sample_for(0.1, variance_of_means(1.0, shares=shares), shares=shares)
    assert with_third.total == pytest.approx(alone / 0.8)
    assert with_third.control == np.ceil(alone / 2)


def test_days_come_from_new_units_and_coverage():
    assert duration_days(14_000, units_per_day=2_000) == pytest.approx(7.0)
    assert duration_days(14_000, units_per_day=2_000, coverage=0.25) == pytest.approx(28.0)


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: variance_of_means(0.0), "control_sd=0.0"),
        (lambda: variance_of_means(1.0, float("nan")), "challenger_sd=nan"),
        (lambda: variance_of_means(1.0, shares=(0.8, 0.3)), "more than 1"),
        (lambda: variance_of_means(1.0, shares=(1.0, 0.0)), "share"),
        (lambda: variance_of_proportions(0.5, 1.0), "challenger_rate=1.0"),
        (lambda: sample_for(0.0, 1.0), "difference=0.0"),
        (lambda: sample_for(1e-200, 1.0), "too small"),
        (lambda: sample_for(float("nan"), 1.0), "difference=nan"),
        (lambda: sample_for(-0.1, 1.0, alternative="greater"), "nothing that a test"),
        (lambda: sample_for(0.1, 1.0, alternative="less"), "nothing that a test"),
        (lambda: sample_for(0.1, 1.0, margin=0.1), "non-inferiority is one-sided"),
        (lambda: sample_for(0.1, 1.0, margin=-1.0, alternative="greater"), "margin=-1.0"),
        (lambda: sample_for(0.1, float("inf")), "variance=inf"),
        (lambda: sample_for(0.1, 1.0, power=0.05), "power=0.05"),
        (lambda: sample_for(0.1, 1.0, alternative="larger"), "alternative='larger'"),
        (lambda: signal_for(alpha=0.0, power=0.8), "not a level"),
        (lambda: power_at(0, 0.1, 1.0, alpha=0.05), "units=0"),
        (lambda: detectable_difference(-5, 1.0), "units=-5"),
        (lambda: duration_days(10, units_per_day=0.0), "units_per_day=0.0"),
        (lambda: duration_days(10, units_per_day=5.0, coverage=1.5), "coverage=1.5"),
    ],
)
def test_bad_plans_are_refused(call, word):
    with pytest.raises(ExperimentError, match=word):
        call()
