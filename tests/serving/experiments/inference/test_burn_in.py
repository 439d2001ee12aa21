import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.inference.burn_in import too_few
from serving.experiments.inference.sequences import running_mean


def test_units_and_effective_units_are_both_asked_for():
    met = np.array([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    residual = np.array([1.0, 9.0, 1.0, 3.0, 3.0, 3.0])
    by_units = too_few(met, residual, burn_in=3, min_effective=0.0)
    np.testing.assert_array_equal(by_units, [True, True, True, False, False, False])
    # Effective: 1, 1, 2, 11^2 / 83 = 1.46, 20^2 / 164 = 2.44, 29^2 / 245 = 3.43
    by_effect = too_few(met, residual, burn_in=1, min_effective=2.4)
    np.testing.assert_array_equal(by_effect, [True, True, True, True, False, False])


def test_rare_ones_are_counted():
    """Of 0/1 outcomes the effective number is near the number of the rarer ones."""
    reward = (np.random.default_rng(1).random(20_000) < 0.01).astype(np.float64)
    every = np.ones(20_000)
    residual = reward - running_mean(every, reward, 0.5)
    silent = too_few(every, residual, burn_in=1, min_effective=50.0)
    assert reward[: silent.argmin()].sum() == pytest.approx(50, abs=3)


def test_an_arm_that_never_varied_stays_silent():
    assert too_few(np.ones(50), np.zeros(50), burn_in=1, min_effective=1.0).all()


@pytest.mark.parametrize(
    ("burn_in", "least", "word"), [(0, 0.0, "burn_in=0"), (1, -1.0, "min_eff"), (1, np.inf, "inf")]
)
def test_bounds_out_of_range_are_refused(burn_in, least, word):
    with pytest.raises(ExperimentError, match=word):
        too_few(np.ones(2), np.ones(2), burn_in=burn_in, min_effective=least)
