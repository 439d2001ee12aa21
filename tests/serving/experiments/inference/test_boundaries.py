import numpy as np
import pytest
from scipy import integrate, optimize, stats

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho, squared_boundary


@pytest.mark.parametrize(("units", "alpha"), [(100, 0.05), (5_000, 0.01), (1, 0.2)])
def test_rho_makes_the_interval_narrowest_where_it_is_tuned(units, alpha):
    def width(log_rho: float) -> float:
        x = units * np.exp(2 * log_rho)
        return float((x + 1) / x * (np.log(x + 1) - 2 * np.log(alpha)))

    best = optimize.minimize_scalar(
        width, bounds=(-12, 5), method="bounded", options={"xatol": 1e-9}
    )
    assert best_rho(units, alpha) == pytest.approx(np.exp(best.x), rel=1e-4)


@pytest.mark.parametrize("alpha", [0.05, 0.001, 0.6])
@pytest.mark.parametrize("alternative", ["greater", "less"])
def test_one_sided_rho_makes_the_one_sided_bound_lowest(alpha, alternative):
    x = 500 * best_rho(500, alpha, alternative) ** 2
    around = squared_boundary(x * np.geomspace(0.2, 5, 401), alpha, alternative)
    assert squared_boundary(np.float64(x), alpha, alternative) <= around.min() * (1 + 1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_bound_is_where_the_mixture_reaches_one_over_alpha(alpha):
    """The two-sided mixture martingale integrated numerically; the one-sided bound is no lower."""
    for x in (0.5, 8.0, 300.0):
        z = np.sqrt(squared_boundary(np.float64(x), alpha, "two-sided"))
        mixed, _ = integrate.quad(
            # Likelihood ratio of drift u * rho after n units, where z sqrt(n) is the sum so far.
            lambda u, z=z, x=x: stats.norm.pdf(u) * np.exp(u * z * np.sqrt(x) - u**2 * x / 2),
            -40,
            40,
            points=[z / np.sqrt(x)],
            limit=500,
        )
        assert mixed == pytest.approx(1 / alpha, rel=1e-9)
        z = np.sqrt(squared_boundary(np.float64(x), alpha, "greater"))
        half = (
            2 / np.sqrt(x + 1) * np.exp(z**2 * x / (2 * (x + 1)))
            * stats.norm.cdf(z * np.sqrt(x / (x + 1)))
        )  # fmt: skip
        assert 1 / alpha <= half < 1.4 / alpha


@pytest.mark.parametrize(
    ("units", "alpha", "alternative", "word"),
    [
        (0, 0.05, "two-sided", "at least 1 unit"),
        (10, 0.0, "two-sided", "not a level"),
        (10, float("nan"), "two-sided", "not a level"),
        (10, 0.05, "larger", "one of two-sided"),
    ],
)
def test_bad_settings_are_refused(units, alpha, alternative, word):
    with pytest.raises(ExperimentError, match=word):
        best_rho(units, alpha, alternative)


@pytest.mark.parametrize(
    ("units", "alpha", "rho", "standard_errors"),
    [
        (1_000, 0.05, 0.03984006677137368, 3.363887725782781),
        (5_500, 0.05, 0.08908509752892212, 3.164583670193472),
        (200_000, 0.01, 0.02401430963062984, 3.753389204352456),
    ],
)
def test_the_bound_is_that_of_gbstats(units, alpha, rho, standard_errors):
    """gbstats 0.8.0 (with numpy < 2, in an environment of its own): half of its interval's width.

    from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
    from gbstats.models.statistics import SampleMeanStatistic
    a = SampleMeanStatistic(n=500, sum=200, sum_squares=250)
    b = SampleMeanStatistic(n=500, sum=225, sum_squares=300)
    config = SequentialConfig(
        difference_type="absolute", alpha=0.05, sequential_tuning_parameter=5000
    )
    test = SequentialTwoSidedTTest(a, b, config)
    low, high = test.confidence_interval
    test.rho, (high - low) / 2 / test.variance**0.5
    """
    x = np.float64(units * rho**2)
    assert np.sqrt(squared_boundary(x, alpha, "two-sided")) == pytest.approx(
        standard_errors, abs=1e-9
    )


@pytest.mark.parametrize(
    ("v", "alpha", "two_sided", "one_sided"),
    [
        (50.0, 0.05, 33.36690856788842, 31.94829777050927),
        (1_000.0, 0.05, 95.98173584209047, 87.47084159966789),
        (30_000.0, 0.05, 587.7869792721726, 545.2620044023604),
        (50.0, 0.01, 36.34992723694947, 35.14151488263906),
        (1_000.0, 0.01, 112.9448566727146, 106.0455461454808),
        (30_000.0, 0.01, 673.1245954148428, 638.1999984530751),
    ],
)
def test_the_bounds_are_those_of_confseq(v, alpha, two_sided, one_sided):
    """confseq 0.0.11 (its header uniform_boundaries.h, Howard et al.), compiled alone.

    normal_mixture_bound(v, alpha, 1000, alpha, is_one_sided), and TwoSidedNormalMixture's
    best_rho(1000, alpha), which is 1 / rho^2 here: the numbers in the body. Its one-sided bound
    inverts the mixture exactly; the closed form lies above, by less than 2%.
    """
    two, one = {
        0.05: (126.0056097925634, 158.0063490685053),
        0.01: (86.70213510596973, 99.98473725907304),
    }[alpha]
    found = np.sqrt(v * squared_boundary(np.float64(v / two), alpha, "two-sided"))
    assert found == pytest.approx(two_sided, rel=1e-9)
    closed = np.sqrt(v * squared_boundary(np.float64(v / one), alpha, "greater"))
    assert one_sided <= closed < 1.02 * one_sided
    # Its best rho is an approximation of the optimum, and no better at what it is tuned for.
    x = np.float64(1_000 * best_rho(1_000, alpha) ** 2)
    tuned = squared_boundary(x, alpha, "two-sided")
    assert tuned <= squared_boundary(np.float64(1_000 / two), alpha, "two-sided")
