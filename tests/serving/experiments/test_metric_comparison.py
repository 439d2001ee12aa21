"""Figures against the inference functions, and the choice of a method."""

import numpy as np
import pytest

from serving.experiments.findings import Finding, Settings
from serving.experiments.goals import MetricGoal
from serving.experiments.inference.covariates import adjust
from serving.experiments.inference.exact import permutation_test
from serving.experiments.inference.exact_rates import Rates, rate_difference
from serving.experiments.inference.intervals import anytime_difference, mean_arms
from serving.experiments.inference.multiplicity import holm
from serving.experiments.inference.quantiles import quantile_arms
from serving.experiments.inference.ratios import adjusted_ratio_arms, ratio_arms
from serving.experiments.inference.readings import readings
from serving.experiments.inference.sequences import ConfidenceSequence
from serving.experiments.metric_arrays import MetricValues, SingleValues
from serving.experiments.metric_comparison import (
    adjusted,
    compare_quantiles,
    compare_sums,
    kind_of,
    reading_of,
    row_of,
    value_of,
)

SETTINGS = Settings(alpha=0.025, tuned_for_units=2_000, burn_in=100)
RANDOM = np.random.default_rng(23)
ON = RANDOM.random(800) < 0.5
ASKS = RANDOM.integers(1, 5, 800).astype(np.float64)
VALUES = MetricValues(RANDOM.gamma(2.0, 5.0, 800) * ASKS, ASKS)
PAST_ASKS = np.where(RANDOM.random(800) < 0.7, 2.0, 0.0)
PAST = MetricValues((VALUES.values + RANDOM.normal(0.0, 2.0, 800)) * PAST_ASKS, PAST_ASKS)


def ends(found: Finding):
    return found.difference, found.low, found.high, found.p


def expected(arms, alpha=0.025):
    found = anytime_difference(arms, alpha=alpha, tuned_for_units=2_000)
    return found.estimate, found.low, found.high, found.p


def test_a_mean_is_that_of_the_units_less_what_their_past_foretells():
    plain = compare_sums(ON, VALUES, None, SETTINGS, as_ratio=False, coins=False)
    assert ends(plain) == pytest.approx(expected(mean_arms(ON, VALUES.values)), abs=1e-12)
    assert (plain.method, plain.variance_cut) == ("anytime", None)
    less = compare_sums(ON, VALUES, PAST, SETTINGS, as_ratio=False, coins=False)
    cuped = adjust(ON, VALUES.values, PAST.values)
    assert ends(less) == pytest.approx(expected(mean_arms(ON, cuped.outcome)), abs=1e-12)
    assert less.variance_cut == pytest.approx(cuped.variance_cut)
    assert less.variance_cut > 0.3


def test_a_ratio_is_of_sums_over_units():
    plain = compare_sums(ON, VALUES, None, SETTINGS, as_ratio=True, coins=False)
    arms = ratio_arms(ON, VALUES.numerator, VALUES.denominator)
    assert ends(plain) == pytest.approx(expected(arms), abs=1e-12)
    less = compare_sums(ON, VALUES, PAST, SETTINGS, as_ratio=True, coins=False)
    arms = adjusted_ratio_arms(
        ON,
        VALUES.numerator,
        VALUES.denominator,
        covariate_numerator=PAST.numerator,
        covariate_denominator=PAST.denominator,
    )
    assert ends(less) == pytest.approx(expected(arms), abs=1e-12)
    assert 0.3 < less.variance_cut < 1.0


def test_a_rate_of_errors_has_half_the_level_as_coins_have_the_other():
    failed = MetricValues((RANDOM.random(800) < 0.2).astype(float), np.ones(800))
    found = compare_sums(ON, failed, None, SETTINGS, as_ratio=True, coins=True)
    arms = ratio_arms(ON, failed.numerator, failed.denominator)
    assert ends(found) == pytest.approx(expected(arms, alpha=0.0125), abs=1e-12)


def test_units_without_a_value_take_no_part():
    some = MetricValues(np.where(ON, VALUES.numerator, 0.0), np.where(ON, VALUES.denominator, 0.0))
    found = compare_sums(ON, some, None, SETTINGS, as_ratio=False, coins=False)
    assert (found.method, found.low) == ("none", None)
    assert value_of("stars", some, ~ON) is None
    assert value_of("stars", some, ON) == pytest.approx(VALUES.values[ON].mean())
    assert value_of("cost", some, ON) == pytest.approx(
        VALUES.numerator[ON].sum() / VALUES.denominator[ON].sum()
    )


def test_few_units_get_an_exact_method_that_decides_nothing():
    on = np.arange(60) % 2 == 1
    right = MetricValues((np.arange(60) % 3 > 0).astype(float) * np.where(on, 1, 0), np.ones(60))
    found = compare_sums(on, right, None, SETTINGS, as_ratio=False, coins=False)
    exact = rate_difference(Rates(int(right.numerator[on].sum()), 30, 0, 30), alpha=0.025)
    assert ends(found) == pytest.approx((exact.estimate, exact.low, exact.high, exact.p))
    stars = MetricValues(np.linspace(1.0, 5.0, 60), np.ones(60))
    moved = compare_sums(on, stars, None, SETTINGS, as_ratio=False, coins=False)
    draws = permutation_test(stars.values[~on], stars.values[on], draws=5_000, seed=0)
    assert (moved.method, moved.p, moved.low) == ("permutation", draws.p, None)
    goal = MetricGoal(name="sentiment_accuracy", direction="increase")
    row = row_of(
        goal, "primary", "int8", found, control_value=0.0, value=0.6, units=(30, 30), alpha=0.025
    )
    assert row.low > 0.0
    assert row.reading == "undecided"
    assert "one look" in row.note.en
    assert row.relative is None  # of a control's value of nought


def test_a_quantile_knows_of_units_and_too_few_values_are_no_failure():
    single = SingleValues(
        RANDOM.exponential(20.0, 1_600),
        np.repeat(ON, 2).astype(np.int64),
        np.repeat(np.arange(800), 2),
    )
    found = compare_quantiles(0, 1, single, 0.9, SETTINGS)
    arms = quantile_arms(np.repeat(ON, 2), single.values, quantile=0.9, unit=single.unit)
    assert ends(found) == pytest.approx(expected(arms), abs=1e-12)
    few = SingleValues(single.values[:50], single.arm[:50], single.unit[:50])
    waits = compare_quantiles(0, 1, few, 0.9, SETTINGS)
    assert (waits.method, waits.low) == ("none", None)
    assert "wait" in waits.note.en


@pytest.mark.parametrize("direction", ["increase", "decrease"])
@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("low", [-0.3, -0.05, 0.05])
def test_an_interval_is_read_as_a_sequence_is(direction, margin, low):
    high = low + 0.15
    sequence = ConfidenceSequence(*(np.asarray([x]) for x in (1, 0.0, low, high)))
    better_is = "higher" if direction == "increase" else "lower"
    goal = MetricGoal(name="stars", direction=direction, margin=margin)
    assert reading_of(low, high, goal) == readings(sequence, margin=margin, better_is=better_is)
    assert reading_of(None, None, goal) == "undecided"


def test_p_values_are_corrected_over_all_metrics_and_arms_but_not_those_of_one_look():
    goal = MetricGoal(name="stars", direction="increase")
    given = {"control_value": 1.0, "value": 1.0, "units": (9, 9), "alpha": 0.05}
    found = [Finding("anytime", 0.1, 0.0, 0.2, p) for p in (0.01, 0.03, 0.5)]
    found.append(Finding("permutation", 0.1, p=0.001))
    rows = adjusted(
        [row_of(goal, "signal", f"arm-{n}", each, **given) for n, each in enumerate(found)]
    )
    wanted = holm({"a": 0.01, "b": 0.03, "c": 0.5})
    assert [row.adjusted_p for row in rows] == [*wanted.values(), None]


def test_kinds_follow_from_the_metric():
    kinds = [
        kind_of(MetricGoal(name=name, direction="decrease", quantile=quantile))
        for name, quantile in (("stars", None), ("cost", None), ("latency_ms", 0.95))
    ]
    assert kinds == ["mean", "ratio", "quantile"]
