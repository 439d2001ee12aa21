import math
from dataclasses import astuple
from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from data.errors import ExperimentError
from serving.experiments.inference.intervals import (
    ArmEstimate,
    Arms,
    anytime_difference,
    difference,
    mean_arms,
    relative_difference,
)


def users():
    """400 users, of uniform draws alone: those stay the same in every numpy."""
    u = np.random.default_rng(2018).random((7, 400))
    on = u[0] < 0.4
    return on, u[1] + u[2] + u[3] + 0.1 * on


def test_one_look_equals_tea_tasting():
    """tea-tasting 1.14.0, with ``on, after = users()``::

    table = pyarrow.table({"variant": on.astype(int), "after": after})
    tea_tasting.Experiment(mean=tea_tasting.Mean("after")).analyze(table)["mean"]
    """
    arms = mean_arms(*users())
    assert arms.champion.estimate == pytest.approx(1.475631101565092, abs=1e-9)
    assert arms.challenger.estimate == pytest.approx(1.5708079923298242, abs=1e-9)
    found = difference(arms, alpha=0.05)
    assert found.estimate == pytest.approx(0.09517689076473212, abs=1e-9)
    assert found.low == pytest.approx(-0.002163884029191404, abs=1e-9)
    assert found.high == pytest.approx(0.19251766555865565, abs=1e-9)
    assert found.p == pytest.approx(0.0552834357897442, abs=1e-9)
    assert found.estimate / found.standard_error == pytest.approx(1.923544112172521, abs=1e-9)
    lift = relative_difference(arms, alpha=0.05)
    assert lift.estimate == pytest.approx(0.064499108661904, abs=1e-9)
    assert lift.low == pytest.approx(-0.0009487175187568031, abs=1e-9)
    assert lift.high == pytest.approx(0.13423442040700517, abs=1e-9)


def test_one_look_equals_scipy():
    on, after = users()
    theirs = stats.ttest_ind(after[on], after[~on], equal_var=False)
    low, high = theirs.confidence_interval(0.9)
    found = difference(mean_arms(on, after), alpha=0.1)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("alternative", "low", "high", "lift_low", "lift_high", "p"),
    [
        ("greater", 0.013557366526118358, np.inf, 0.009340368446767222, np.inf, 0.0276417178948721),
        ("less", -np.inf, 0.1767964150033459, -1.0, 0.1226721805308939, 0.9723582821051279),
    ],
)
def test_one_sided_looks_equal_tea_tasting(alternative, low, high, lift_low, lift_high, p):
    """As above, with ``tea_tasting.Mean("after", alternative=alternative)``.

    It leaves a lift's lower end at minus infinity, where no lift can be below -100%.
    """
    arms = mean_arms(*users())
    found = difference(arms, alpha=0.05, alternative=alternative)
    lift = relative_difference(arms, alpha=0.05, alternative=alternative)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert (lift.low, lift.high) == pytest.approx((lift_low, lift_high), abs=1e-9)
    assert found.p == pytest.approx(p, abs=1e-9)


def test_every_look_equals_gbstats():
    """gbstats 0.8.0 (numpy 1.26.4), with ``on, after = users()``::

    def mean(v):
        return SampleMeanStatistic(n=len(v), sum=v.sum(), sum_squares=(v * v).sum())

    config = SequentialConfig(difference_type="absolute", sequential_tuning_parameter=400)
    SequentialTwoSidedTTest(mean(after[~on]), mean(after[on]), config).compute_result()

    gbstats takes an approximation for the units to tune for (arXiv 2103.06476v7, equation 161);
    the sequence is the same one once it is asked to be narrowest where that approximation is.
    """
    wanted = -2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)
    exact = -float(special.lambertw(-(0.05**2) / np.e, k=-1).real) - 1
    found = anytime_difference(
        mean_arms(*users()), alpha=0.05, tuned_for_units=400 * exact / wanted
    )
    assert found.low == pytest.approx(-0.05500513661747289, abs=1e-9)
    assert found.high == pytest.approx(0.24535891814693803, abs=1e-9)
    assert found.p == pytest.approx(0.5781436596965878, abs=1e-9)


def test_looking_often_keeps_the_level():
    """300 A/A experiments of skewed outcomes, 91 looks each, from some 100 units per arm on."""
    random = np.random.default_rng(4)
    excluded = naive = 0
    for _ in range(300):
        on = random.random(2_000) < 0.5
        outcome = random.exponential(size=2_000)
        looks = [mean_arms(on[:n], outcome[:n]) for n in range(200, 2_001, 20)]
        any_look = [anytime_difference(arms, alpha=0.05, tuned_for_units=1_000) for arms in looks]
        excluded += any(each.low > 0 or each.high < 0 for each in any_look)
        naive += any(abs(each.estimate) > 1.96 * each.standard_error for each in any_look)
    assert excluded / 300 <= 0.05
    assert naive / 300 > 0.15


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_p_says_when_the_interval_leaves_zero_out(alternative):
    on, outcome = users()
    for shift in np.linspace(-0.6, 0.4, 41):
        arms = mean_arms(on, outcome + shift * on)
        for found in (
            difference(arms, alpha=0.05, alternative=alternative),
            anytime_difference(arms, alpha=0.05, tuned_for_units=500, alternative=alternative),
        ):
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
            assert 0.0 <= found.p <= 1.0


def test_a_sequence_that_looks_one_way_is_wrong_no_more_often_and_narrower():
    random = np.random.default_rng(12)
    excluded = 0
    for _ in range(300):
        on = random.random(2_000) < 0.5
        outcome = random.exponential(size=2_000)
        for n in range(200, 2_001, 40):
            found = anytime_difference(
                mean_arms(on[:n], outcome[:n]),
                alpha=0.05,
                tuned_for_units=1_000,
                alternative="greater",
            )
            if found.low > 0:
                excluded += 1
                break
    assert excluded / 300 <= 0.05
    arms = mean_arms(*users())
    one = anytime_difference(arms, alpha=0.05, tuned_for_units=400, alternative="greater")
    both = anytime_difference(arms, alpha=0.05, tuned_for_units=400)
    assert both.low < one.low < one.estimate < one.high == math.inf


def test_the_sequence_is_wider_than_one_look_and_narrowest_where_tuned():
    arms = mean_arms(*users())
    widths = {
        units: anytime_difference(arms, alpha=0.05, tuned_for_units=units).high
        for units in (100, 400, 1_600)
    }
    assert difference(arms, alpha=0.05).high < widths[400] < min(widths[100], widths[1_600])


def test_one_constant_arm_still_has_an_interval():
    on = np.arange(60) % 2 == 0
    outcome = np.where(on, 1.0, np.arange(60) % 3 / 2)
    found = difference(mean_arms(on, outcome), alpha=0.05)
    assert found.low < found.estimate < found.high
    assert all(math.isfinite(value) for value in astuple(found))


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_tiny_and_huge_units_of_measure_do_not_matter(scale):
    on, outcome = users()
    plain = difference(mean_arms(on, outcome), alpha=0.05)
    scaled = difference(mean_arms(on, outcome * scale), alpha=0.05)
    assert scaled.low == pytest.approx(plain.low * scale, rel=1e-9)
    assert scaled.p == pytest.approx(plain.p, rel=1e-9)


ON = np.array([True, True, False, False])


@pytest.mark.parametrize(
    ("on", "outcome", "said"),
    [
        (ON, np.array([1.0, np.nan, 2.0, 3.0]), r"outcome\[1\]=nan"),
        (ON, np.array([1.0, 2.0, np.inf, 3.0]), r"outcome\[2\]=inf"),
        (ON, np.ones(3), "shape"),
        (np.array([], dtype=bool), np.array([]), "0 and 0 units"),
        (np.array([True]), np.ones(1), "0 and 1 units"),
        (np.ones(4, dtype=bool), np.arange(4.0), "0 and 4 units"),
        (np.array([0, 1, 1, 0]), np.arange(4.0), "True or False"),
    ],
)
def test_what_cannot_be_compared_is_refused(on, outcome, said):
    with pytest.raises(ExperimentError, match=said):
        mean_arms(on, outcome)


@pytest.mark.parametrize(
    "compare",
    [difference, relative_difference, partial(anytime_difference, tuned_for_units=10)],
)
def test_no_variation_is_refused(compare):
    with pytest.raises(ExperimentError, match="within either arm"):
        compare(mean_arms(ON, np.ones(4)), alpha=0.05)


def test_overwhelming_evidence_has_a_p_of_nought():
    arms = Arms(ArmEstimate(10_000, 0.0, 1e-3, 9_999), ArmEstimate(10_000, 1.0, 1e-3, 9_999))
    for alternative in ("two-sided", "greater"):
        found = anytime_difference(arms, alpha=0.05, tuned_for_units=100, alternative=alternative)
        assert 0.0 <= found.p < 1e-300
    assert anytime_difference(arms, alpha=0.05, tuned_for_units=100, alternative="less").p == 1.0


def test_an_unknown_alternative_is_refused():
    arms = mean_arms(*users())
    with pytest.raises(ExperimentError, match="alternative='larger'"):
        difference(arms, alpha=0.05, alternative="larger")
    with pytest.raises(ExperimentError, match="alternative='larger'"):
        anytime_difference(arms, alpha=0.05, tuned_for_units=10, alternative="larger")


@pytest.mark.parametrize("alpha", [0.0, 1.0, float("nan"), -0.1])
def test_what_is_no_level_is_refused(alpha):
    arms = mean_arms(*users())
    with pytest.raises(ExperimentError, match="not a level"):
        difference(arms, alpha=alpha)
    with pytest.raises(ExperimentError, match="not a level"):
        anytime_difference(arms, alpha=alpha, tuned_for_units=100)


def test_a_lift_of_nothing_and_an_overflow_are_refused():
    arm = ArmEstimate(10, 0.0, 1.0, 9)
    with pytest.raises(ExperimentError, match="above zero"):
        relative_difference(Arms(arm, ArmEstimate(10, 1.0, 1.0, 9)), alpha=0.05)
    with pytest.raises(ExperimentError, match="finite numbers"):
        difference(Arms(arm, ArmEstimate(10, math.inf, 1.0, 9)), alpha=0.05)
    with pytest.raises(ExperimentError, match="1 units"):
        difference(Arms(arm, ArmEstimate(1, 1.0, 1.0, 0)), alpha=0.05)
