"""The primary metric's sequences against the functions that make them."""

import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.findings import Settings
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.covariates import predictable_guesses
from serving.experiments.inference.intervals import anytime_difference
from serving.experiments.inference.many_arms import arm_sequences
from serving.experiments.inference.ratios import ratio_arms
from serving.experiments.metric_arrays import MetricValues
from serving.experiments.primary_sequence import mean_sequences, ratio_sequences

SETTINGS = Settings(alpha=0.05, tuned_for_units=1_000, burn_in=100)
SHARES = [0.4, 0.3, 0.3]
RANDOM = np.random.default_rng(31)
ARM = RANDOM.choice(3, size=1_200, p=SHARES)
ASKS = RANDOM.integers(0, 4, 1_200).astype(np.float64)
RIGHT = MetricValues(RANDOM.binomial(ASKS.astype(int), 0.7).astype(np.float64), ASKS)
PAST_ASKS = np.where(RANDOM.random(1_200) < 0.6, 3.0, 0.0)
GOOD = np.nan_to_num(RIGHT.values, nan=0.5)
PAST = MetricValues(np.clip(GOOD + RANDOM.normal(0, 0.1, 1_200), 0, 1) * PAST_ASKS, PAST_ASKS)


def expected(values, past=None):
    known = values.known
    guesses = None
    if past is not None:
        guesses = predictable_guesses(
            ARM[known], values.values[known], past.of(known).values, arms=3, first_guess=0.5
        )
    return arm_sequences(
        ARM[known],
        values.values[known],
        shares=SHARES,
        alpha=0.05,
        tuned_for_units=1_000,
        burn_in=100,
        family_wise=False,
        guesses=guesses,
        min_effective=EFFECTIVE,
    )


@pytest.mark.parametrize("past", [None, PAST])
def test_several_arms_have_the_sequences_of_all_units_with_a_value(past):
    found = mean_sequences("reward", ARM, RIGHT, past, SHARES, SETTINGS)
    for one, whole in zip(found, expected(RIGHT, past), strict=True):
        place = one.looks.n - 1
        np.testing.assert_array_equal(one.looks.low, whole.low[place])
        np.testing.assert_array_equal(one.looks.high, whole.high[place])
        assert one.finding.low == whole.low[-1]
        assert one.speaks[-1]
        assert len(one.looks.n) <= 200
        assert (one.finding.variance_cut is None) == (past is None)
    if past is not None:
        assert found[0].finding.variance_cut > 0.3
        assert found[0].finding.high - found[0].finding.low < np.ptp(
            [expected(RIGHT)[0].low[-1], expected(RIGHT)[0].high[-1]]
        )


def test_the_p_value_is_the_level_at_which_the_interval_would_end_at_zero():
    found = mean_sequences("reward", ARM, RIGHT, None, SHARES, SETTINGS)[0].finding
    better = MetricValues(RIGHT.numerator + (ARM == 1) * 0.2 * ASKS * (GOOD < 0.9), ASKS)
    better = MetricValues(np.minimum(better.numerator, ASKS), ASKS)
    moved = mean_sequences("reward", ARM, better, None, SHARES, SETTINGS)[0].finding
    assert moved.p < found.p
    at_p = Settings(alpha=moved.p, tuned_for_units=1_000, burn_in=100)
    again = mean_sequences("reward", ARM, better, None, SHARES, at_p)[0].finding
    # rho follows alpha a little, so it is near zero and not at it.
    assert abs(again.low) < 0.2 * (moved.high - moved.low)


def test_a_metric_without_a_range_begins_from_its_first_unit():
    stars = MetricValues((3.0 + RANDOM.normal(0.0, 1.0, 1_200)) * 1_000.0, np.ones(1_200))
    found = mean_sequences("stars", ARM, stars, None, SHARES, SETTINGS)
    for one, place in zip(found, (1, 2), strict=True):
        on, off = (stars.values[which == ARM] for which in (place, 0))
        assert one.looks.n[-1] == 1_199
        assert one.finding.difference == pytest.approx(on.mean() - off.mean(), abs=60.0)
        assert one.finding.high - one.finding.low < 700.0


def test_a_ratio_at_the_last_look_is_that_of_all_units():
    found = ratio_sequences(ARM, RIGHT, 3, SETTINGS)
    for one, place in zip(found, (1, 2), strict=True):
        both = RIGHT.known & ((ARM == 0) | (place == ARM))
        arms = ratio_arms(ARM[both] == place, RIGHT.numerator[both], RIGHT.denominator[both])
        wanted = anytime_difference(arms, alpha=0.05, tuned_for_units=1_000)
        assert one.finding.difference == pytest.approx(wanted.estimate, abs=1e-12)
        assert one.finding.high - one.finding.low == pytest.approx(wanted.high - wanted.low, 0.01)


def test_nothing_and_little_say_nothing():
    none = MetricValues(np.zeros(0), np.zeros(0))
    for name in ("reward", "stars"):
        found = mean_sequences(name, ARM[:0], none, None, [0.5, 0.5], SETTINGS)
        assert found[0].finding.method == "none"
        assert not len(found[0].looks.n)
    few = mean_sequences(
        "reward", ARM[:50], RIGHT.of(np.arange(1_200) < 50), None, SHARES, SETTINGS
    )
    assert few[0].finding.low is None
    assert not few[0].speaks.any()
    alone = mean_sequences("stars", ARM[:1], MetricValues(*np.ones((2, 1))), None, SHARES, SETTINGS)
    assert alone[0].finding.method == "none"


def test_a_reward_beyond_its_range_is_told():
    strange = MetricValues(np.full(1_200, 3.0), np.ones(1_200))
    with pytest.raises(ExperimentError, match="outside 0 … 1"):
        mean_sequences("reward", ARM, strange, None, SHARES, SETTINGS)
