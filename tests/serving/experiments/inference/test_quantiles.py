import itertools

import numpy as np
import pytest
from scipy import special, stats
from scipy.stats.mstats import mquantiles

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.intervals import anytime_difference, difference
from serving.experiments.inference.quantiles import (
    anytime_quantile_difference,
    binned_quantile_difference,
    quantile_arms,
)


def grouped():
    """300 users with one to six answers each, of uniform draws alone."""
    random = np.random.default_rng(2019)
    answers = 1 + np.floor(6 * random.random(300)).astype(int)
    unit = np.repeat(np.arange(300), answers)
    return unit, random.random(300)[unit] + random.random(len(unit))


def latencies(random, users, *, slower=1.0):
    """Lognormal milliseconds; a user's answers have much in common."""
    answers = random.geometric(0.2, users)
    unit = np.repeat(np.arange(users), answers)
    on = random.random(users) < 0.5
    log = random.normal(4.0, 0.4, users)[unit] + random.normal(0.0, 0.3, len(unit))
    return on[unit], np.exp(log) * np.where(on[unit], slower, 1.0), unit


def evidence(below, count, quantile, concentration):
    """Log of the beta mixture's likelihood ratio, by scipy's beta-binomial distribution."""
    a, b = concentration * quantile, concentration * (1 - quantile)
    mixture = stats.betabinom.logpmf(below, count, a, b)
    return mixture - stats.binom.logpmf(below, count, quantile)


def slow_interval(on, values, quantile, alpha, tuned_for):
    """Every pair of numbers of values below; the docstring's set, without splits or bisection."""
    concentration = 1 / best_rho(tuned_for, alpha) ** 2
    sides = [np.sort(values[~on]), np.sort(values[on])]
    said = [evidence(np.arange(len(s) + 1), len(s), quantile, concentration) for s in sides]
    padded = [np.concatenate([[-np.inf], s, [np.inf]]) for s in sides]
    low, high = np.inf, -np.inf
    for i, j in itertools.product(range(len(sides[0]) + 1), range(len(sides[1]) + 1)):
        if said[0][i] + said[1][j] <= -np.log(alpha):
            low = min(low, padded[1][j] - padded[0][i + 1])
            high = max(high, padded[1][j + 1] - padded[0][i])
    return low, high


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_the_estimate_is_scipys_quantile(quantile):
    random = np.random.default_rng(1)
    on, values, _ = latencies(random, 1_200)
    arms = quantile_arms(on, values, quantile=quantile)
    # alphap = betap = 1 is the linear interpolation that numpy takes by default.
    assert arms.challenger.estimate == pytest.approx(
        mquantiles(values[on], [quantile], 1, 1)[0], rel=1e-12
    )
    assert arms.champion.units == (~on).sum()


def test_a_clustered_share_is_as_uncertain_as_gbstats_says():
    """gbstats 0.8.0 (numpy 1.26.4), with ``unit, value = grouped()`` and ``q`` its quantile 0.75::

        s, n = np.bincount(unit, value <= q), np.bincount(unit)
        QuantileClusteredStatistic(nu=0.75, n_clusters=300, main_sum=s.sum(), ...)
        sqrt(get_cluster_variance)   # 0.018790040502453174; 0.0132 if values were independent

    The standard error is the width between the quantiles so many errors away, as scipy reads them.
    """
    unit, value = grouped()
    on = unit >= 300
    both = np.concatenate([value, value]), np.concatenate([on, ~on])
    arms = quantile_arms(both[1], both[0], quantile=0.75, unit=np.concatenate([unit, unit + 300]))
    z = stats.norm.isf(0.025)
    ends = 0.75 + np.array([-1, 1]) * z * 0.018790040502453174
    low, high = mquantiles(value, ends, 1, 1)
    assert arms.champion.estimate == pytest.approx(1.2877431148990761, abs=1e-9)
    assert arms.champion.standard_error == pytest.approx((high - low) / (2 * z), abs=1e-9)
    assert arms.champion.units == 300
    assert arms.challenger == arms.champion


def test_the_standard_error_is_the_densitys():
    """The textbook's sqrt(p (1 - p) / n) / density, for many normal draws."""
    random = np.random.default_rng(2)
    on = np.arange(400_000) % 2 == 0
    arms = quantile_arms(on, random.normal(size=400_000), quantile=0.95)
    expected = np.sqrt(0.95 * 0.05 / 200_000) / stats.norm.pdf(stats.norm.ppf(0.95))
    assert arms.champion.standard_error == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("quantile", "users"), [(0.5, 400), (0.95, 1_600)])
def test_one_look_keeps_the_level_where_users_have_many_answers(quantile, users):
    """600 A/A experiments: answers taken for independent are wrong far more often."""
    random = np.random.default_rng(3)
    wrong = naive = 0
    for _ in range(600):
        on, values, unit = latencies(random, users)
        wrong += (
            difference(quantile_arms(on, values, quantile=quantile, unit=unit), alpha=0.05).p < 0.05
        )
        naive += difference(quantile_arms(on, values, quantile=quantile), alpha=0.05).p < 0.05
    # 5% with a standard error of 0.9 percentage points.
    assert 0.025 <= wrong / 600 <= 0.075
    assert naive / 600 > 0.15


def test_any_number_of_looks_keep_the_level_where_users_have_many_answers():
    """200 A/A experiments of 2,400 users, looked at every 100 from the 1,200th on."""
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(200):
        on, values, unit = latencies(random, 2_400)
        for users in range(1_200, 2_401, 100):
            now = unit < users
            arms = quantile_arms(on[now], values[now], quantile=0.9, unit=unit[now])
            found = anytime_difference(arms, alpha=0.05, tuned_for_units=1_000)
            if found.low > 0 or found.high < 0:
                wrong += 1
                break
    assert wrong / 200 <= 0.05


@pytest.mark.parametrize(
    ("quantile", "share", "ties"), [(0.5, 0.5, False), (0.9, 0.3, False), (0.8, 0.5, True)]
)
def test_the_exact_interval_holds_every_pair_that_the_mixture_allows(quantile, share, ties):
    random = np.random.default_rng(5)
    for count in (0, 1, 2, 15, 60, 150):
        on = random.random(count) < share
        values = random.exponential(size=count)
        values = np.round(values, 1) if ties else values
        found = anytime_quantile_difference(
            on, values, quantile=quantile, alpha=0.2, tuned_for_values=40
        )
        low, high = slow_interval(on, values, quantile, 0.2, 40)
        assert found.low <= low
        assert found.high >= high
        if count == 150:
            # The splits of the evidence widen it by little.
            assert found.high - found.low <= 1.25 * (high - low)


def test_the_evidence_is_the_beta_binomials():
    """Within the product's own formula: beta functions, and no binomial coefficient."""
    below, count, c, p = np.arange(0, 51.0), 50, 7.0, 0.9
    ours = (
        special.betaln(c * p + below, c * (1 - p) + count - below)
        - special.betaln(c * p, c * (1 - p))
        - below * np.log(p)
        - (count - below) * np.log1p(-p)
    )
    np.testing.assert_allclose(ours, evidence(below, count, p, c), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("quantile", "step"), [(0.5, 0.0), (0.5, 10.0), (0.95, 10.0)])
def test_the_exact_interval_holds_at_every_look(quantile, step):
    """300 experiments of exponential latencies, 24 looks from the tenth on; a step makes ties."""

    def measured(values):
        return np.ceil(values / step) * step if step else values

    random = np.random.default_rng(6)
    champion, challenger = measured(np.array([100.0, 130.0]) * stats.expon.ppf(quantile))
    wrong = decided = 0
    for _ in range(300):
        on = random.random(3_000) < 0.5
        values = measured(random.exponential(np.where(on, 130.0, 100.0)))
        inside = True
        for count in np.geomspace(10, 3_000, 24).astype(int):
            found = anytime_quantile_difference(
                on[:count], values[:count], quantile=quantile, alpha=0.05, tuned_for_values=700
            )
            inside &= found.low <= challenger - champion <= found.high
        wrong += not inside
        decided += found.low > 0
    assert wrong / 300 <= 0.05
    if quantile == 0.5 and not step:
        assert decided / 300 > 0.5


def test_ten_million_values_of_clustered_units_have_their_quantile():
    random = np.random.default_rng(7)
    values = random.lognormal(4.0, 0.5, 10_000_000)
    unit = np.arange(10_000_000) // 8
    on = random.random(1_250_000)[unit] < 0.5
    arms = quantile_arms(on, values, quantile=0.99, unit=unit)
    exact = anytime_quantile_difference(
        on, values, quantile=0.99, alpha=0.05, tuned_for_values=5_000_000
    )
    found = difference(arms, alpha=0.05)
    assert exact.low < found.low < found.high < exact.high
    assert arms.champion.estimate == pytest.approx(np.exp(4 + 0.5 * stats.norm.ppf(0.99)), rel=0.01)


def test_too_few_values_for_a_far_quantile_are_refused_or_say_nothing():
    on = np.arange(200) % 2 == 0
    values = np.arange(200.0)
    with pytest.raises(ExperimentError, match=r"1\.0 independent ones beyond quantile 0\.99"):
        quantile_arms(on, values, quantile=0.99)
    exact = anytime_quantile_difference(
        on, values, quantile=0.99, alpha=0.05, tuned_for_values=1_000
    )
    assert (exact.low, exact.high) == (-np.inf, np.inf)
    nothing = anytime_quantile_difference(
        on[:0], values[:0], quantile=0.5, alpha=0.05, tuned_for_values=10
    )
    assert (nothing.low, nothing.high) == (-np.inf, np.inf)
    assert np.isnan(nothing.estimate)


ON = np.array([True, True, False, False])


@pytest.mark.parametrize(
    ("on", "values", "quantile", "said"),
    [
        (ON, np.array([1.0, np.nan, 2.0, 3.0]), 0.5, "not finite"),
        (ON, np.array([1.0, np.inf, 2.0, 3.0]), 0.5, "not finite"),
        (ON, np.ones(3), 0.5, "shape"),
        (ON.astype(int), np.ones(4), 0.5, "True or False"),
        (ON, np.ones(4), 1.0, "between 0 and 1"),
        (ON, np.ones(4), float("nan"), "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(on, values, quantile, said):
    with pytest.raises(ExperimentError, match=said):
        quantile_arms(on, values, quantile=quantile)
    with pytest.raises(ExperimentError, match=said):
        anytime_quantile_difference(on, values, quantile=quantile, alpha=0.05, tuned_for_values=10)


def test_arms_without_values_units_of_both_arms_and_constants_are_refused():
    with pytest.raises(ExperimentError, match="challenger has no values"):
        quantile_arms(np.zeros(400, dtype=bool), np.arange(400.0), quantile=0.5)
    with pytest.raises(ExperimentError, match="1 units have answers of both arms"):
        quantile_arms(ON, np.arange(4.0), quantile=0.5, unit=np.array([0, 1, 1, 2]))
    with pytest.raises(ExperimentError, match="4 values of 1 units"):
        quantile_arms(np.arange(8) < 4, np.arange(8.0), quantile=0.5, unit=np.arange(8) // 4)
    on = np.arange(400) % 2 == 0
    for unit in (None, np.arange(400)):
        constant = quantile_arms(on, np.full(400, 30.0), quantile=0.5, unit=unit)
        with pytest.raises(ExperimentError, match="within either arm"):
            difference(constant, alpha=0.05)
    exact = anytime_quantile_difference(
        np.arange(400) % 2 == 0, np.full(400, 30.0), quantile=0.5, alpha=0.05, tuned_for_values=200
    )
    assert (exact.low, exact.high) == (0.0, 0.0)


def test_bins_widen_the_exact_interval_by_no_more_than_a_bin():
    random = np.random.default_rng(11)
    on, values, _ = latencies(random, 900, slower=1.4)
    edges = np.concatenate([[-np.inf, 0.0], np.geomspace(1.0, 1e4, 800), [np.inf]])
    counted = [np.histogram(side, edges)[0] for side in (values[~on], values[on])]
    options = {"quantile": 0.9, "alpha": 0.05, "tuned_for_values": 500}

    exact = anytime_quantile_difference(on, values, **options)
    binned = binned_quantile_difference(*counted, edges, **options)

    step = (edges[3] / edges[2] - 1.0) * np.quantile(values, 0.999)
    assert exact.low - 2 * step <= binned.low <= exact.low
    assert exact.high <= binned.high <= exact.high + 2 * step
    assert binned.estimate == pytest.approx(exact.estimate, abs=step)


def test_bins_without_values_say_nothing():
    edges, none = np.asarray([-np.inf, 0.0, 1.0, np.inf]), np.zeros(3, dtype=np.int64)
    found = binned_quantile_difference(
        none, np.asarray([0, 500, 0]), edges, quantile=0.5, alpha=0.05, tuned_for_values=100
    )
    assert np.isnan(found.estimate)
    assert (found.low, found.high) == (-np.inf, np.inf)
    with pytest.raises(ExperimentError, match="a count for each pair of neighbours"):
        binned_quantile_difference(
            none, none[:2], edges, quantile=0.5, alpha=0.05, tuned_for_values=100
        )
    with pytest.raises(ExperimentError, match=r"quantile=1\.0"):
        binned_quantile_difference(
            none, none, edges, quantile=1.0, alpha=0.05, tuned_for_values=100
        )
