import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.intervals import anytime_difference
from serving.experiments.inference.ratio_sums import RatioSums
from serving.experiments.inference.ratios import ratio_arms

ALPHA, TUNED = 0.05, 2_000
RHO = best_rho(TUNED, ALPHA, "greater")


def told(arm, numerator, denominator, *, parts=1):
    """Sums that learn of each unit in so many parts."""
    sums = RatioSums(int(arm.max()) + 1)
    before = (np.zeros(len(arm)), np.zeros(len(arm)))
    for part in range(1, parts + 1):
        after = (numerator * part / parts, denominator * part / parts)
        sums.change(arm, before, after)
        before = after
    return sums


def latencies(units=900, seed=3):
    random = np.random.default_rng(seed)
    answers = random.integers(1, 6, units).astype(float)
    return random.integers(0, 2, units), answers * random.lognormal(4.0, 0.3, units), answers


@pytest.mark.parametrize("parts", [1, 7])
def test_it_is_the_interval_of_all_units_read_at_once(parts):
    arm, numerator, denominator = latencies()
    arms = ratio_arms(arm == 1, numerator, denominator)
    ends = [
        anytime_difference(arms, alpha=ALPHA, tuned_for_units=TUNED, alternative=side)
        for side in ("greater", "less")
    ]

    found = told(arm, numerator, denominator, parts=parts).look(1, alpha=ALPHA, rho=RHO)

    assert found.control == pytest.approx(arms.champion.estimate, rel=1e-12)
    assert found.challenger == pytest.approx(arms.challenger.estimate, rel=1e-12)
    assert found.low == pytest.approx(ends[0].low, rel=1e-9)
    assert found.high == pytest.approx(ends[1].high, rel=1e-9)


def test_a_hundred_units_of_each_arm_come_first():
    arm, numerator, denominator = latencies()
    few = np.concatenate([np.flatnonzero(arm == 0)[:99], np.flatnonzero(arm == 1)])
    found = told(arm[few], numerator[few], denominator[few]).look(1, alpha=ALPHA, rho=RHO)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert np.isfinite(found.control)


def test_an_arm_that_never_varied_may_not_have_met_its_rare_values_yet():
    arm = np.repeat([0, 1], 200)
    numerator = np.where(np.arange(400) % 4, 1.0, 0.0) * (arm == 1)
    found = told(arm, numerator, np.ones(400)).look(1, alpha=ALPHA, rho=RHO)
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_two_arms_of_which_neither_varies_leave_nothing_to_doubt():
    arm = np.repeat([0, 1], 150)
    prices = np.where(arm == 1, 0.004, 0.0025)
    answers = np.random.default_rng(1).integers(1, 9, 300).astype(float)
    found = told(arm, prices * answers, answers, parts=9).look(1, alpha=ALPHA, rho=RHO)
    assert found.low == pytest.approx(0.0015, rel=1e-9)


def test_without_a_unit_there_is_no_ratio():
    sums = RatioSums(3)
    assert sums.units(2) == 0
    assert np.isnan(sums.ratio(2))
    assert sums.look(2, alpha=ALPHA, rho=RHO).low == -np.inf


@pytest.mark.parametrize(
    ("numerator", "denominator", "words"),
    [(np.nan, 1.0, "not finite"), (1.0, np.inf, "not finite"), (1.0, -1.0, "denominator is -1.0")],
)
def test_what_no_event_adds_is_refused(numerator, denominator, words):
    sums, one = RatioSums(2), np.ones(1)
    with pytest.raises(ExperimentError, match=words):
        sums.change(np.asarray([0]), (one, one), (one * numerator, one * denominator))
    assert sums.units(0) == 0
