import numpy as np
import pytest
from scipy import optimize, stats

from data.errors import ExperimentError
from serving.experiments.inference.anytime_rates import (
    Sum,
    anytime_mean,
    anytime_mean_difference,
)


def test_the_ends_are_where_the_mixture_of_likelihoods_is_as_likely_as_alpha():
    """The mixture by scipy's beta-binomial, so that no formula is shared."""
    hits, units, alpha = 7, 60, 0.05
    mixture = stats.betabinom.logpmf(hits, units, 0.5, 0.5)

    def excess(rate):
        return mixture - stats.binom.logpmf(hits, units, rate) + np.log(alpha)

    low, high = anytime_mean(Sum(hits, units), alpha=alpha)
    assert low == pytest.approx(optimize.brentq(excess, 1e-9, hits / units), abs=1e-9)
    assert high == pytest.approx(optimize.brentq(excess, hits / units, 1 - 1e-9), abs=1e-9)


def test_it_holds_at_every_look_also_of_shares():
    random = np.random.default_rng(5)
    wrong = 0
    for mean in (0.02, 0.3):
        # Shares of three requests, which fail together more often than not.
        together = random.random((300, 400)) < 0.5
        each = random.random((300, 400, 3)) < mean
        shares = np.where(together, each[..., 0], each.mean(axis=-1))
        totals = shares.cumsum(axis=1)
        for path in totals:
            for units in (1, 5, 20, 60, 150, 400):
                low, high = anytime_mean(Sum(float(path[units - 1]), units), alpha=0.1)
                if not low <= mean <= high:
                    wrong += 1
                    break
    assert wrong <= 0.1 * 600


def test_it_speaks_of_an_arm_that_always_fails_and_of_the_first_unit():
    found = anytime_mean_difference(Sum(30, 30), Sum(0, 30), alpha=0.01)
    assert found.estimate == 1.0
    assert 0.5 < found.low < 1.0 == found.high
    assert anytime_mean(Sum(0, 1), alpha=0.05) == (0.0, pytest.approx(0.975, abs=1e-6))
    turned = anytime_mean_difference(Sum(0, 30), Sum(30, 30), alpha=0.01)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(("total", "units"), [(0, 0), (-1, 5), (6, 5), (float("nan"), 5)])
def test_what_is_no_sum_is_refused(total, units):
    with pytest.raises(ExperimentError, match="one value from 0 to 1"):
        Sum(total, units)
    with pytest.raises(ExperimentError, match="alpha"):
        anytime_mean(Sum(1, 2), alpha=1.0)
