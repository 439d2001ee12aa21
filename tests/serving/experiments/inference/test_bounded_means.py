import numpy as np
import pytest
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.bounded_means import BoundedSum, bounded_difference


def test_an_arm_that_always_fails_is_seen_after_thirty_units():
    found = bounded_difference(BoundedSum(30, 0.0), BoundedSum(30, 30.0), alpha=0.025)
    assert found.estimate == 1.0
    assert 0.6 < found.low < 1.0
    assert found.high == 1.0


def test_nothing_seen_says_nothing():
    found = bounded_difference(BoundedSum(0, 0.0), BoundedSum(30, 30.0), alpha=0.05)
    assert np.isnan(found.estimate)
    assert found.low < 0.0
    assert found.high == 1.0


def test_it_is_the_set_of_all_pairs_of_rates_that_the_evidence_leaves():
    """By the beta-binomial distribution of scipy, over a grid instead of splits and bisection."""
    arms, alpha = [(40, 3), (25, 9)], 0.05
    rates = np.linspace(0.0005, 0.9995, 1_000)
    logs = [
        stats.betabinom.logpmf(hits, count, 0.5, 0.5) - stats.binom.logpmf(hits, count, rates)
        for count, hits in arms
    ]
    left = logs[0][:, None] + logs[1][None, :] <= -np.log(alpha)
    differences = (rates[None, :] - rates[:, None])[left]

    found = bounded_difference(*(BoundedSum(*arm) for arm in arms), alpha=alpha)

    assert differences.min() - 0.02 < found.low <= differences.min() + 1e-3
    assert differences.max() - 1e-3 <= found.high < differences.max() + 0.02


def test_turned_around_it_is_the_same():
    one, other = BoundedSum(50, 12.5), BoundedSum(400, 31.0)
    there, back = (bounded_difference(*pair, alpha=0.01) for pair in [(one, other), (other, one)])
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=2e-3)


@pytest.mark.parametrize("draw", ["zeros and ones", "fractions"])
def test_it_is_hardly_ever_wrong_however_often_one_looks(draw):
    random, wrong, runs = np.random.default_rng(7), 0, 150
    for _ in range(runs):
        on = random.random(600) < 0.3
        values = random.random(600) < 0.05 if draw == "zeros and ones" else random.beta(1, 3, 600)
        for look in range(20, 601, 20):
            arms = [
                BoundedSum(int(met.sum()), float(values[:look][met].sum()))
                for met in (~on[:look], on[:look])
            ]
            found = bounded_difference(*arms, alpha=0.2)
            if not found.low <= 0.0 <= found.high:
                wrong += 1
                break
    # At 0.2 at most 30 of 150 are expected; far fewer come, since its bounds are not asymptotic.
    assert wrong <= 30


@pytest.mark.parametrize("total", [-0.1, 10.5, float("nan")])
def test_sums_that_no_such_values_have_are_refused(total):
    with pytest.raises(ExperimentError, match="give values from 0 to 1"):
        BoundedSum(10, total)


def test_a_level_is_checked():
    with pytest.raises(ExperimentError, match=r"alpha=1\.0 is not a level"):
        bounded_difference(BoundedSum(1, 0.0), BoundedSum(1, 0.0), alpha=1.0)
