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
