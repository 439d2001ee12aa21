import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.inference.fixed_looks import paired_bootstrap, welch
from serving.experiments.inference.sequences import confidence_sequence


def test_welch_and_the_sequence_agree_on_the_estimate_and_welch_is_narrower():
    random = np.random.default_rng(21)
    on = random.random(2_000) < 0.5
    reward = (random.random(2_000) < np.where(on, 0.7, 0.6)).astype(np.float64)
    fixed = welch(on, reward, alpha=0.05)
    sequence = confidence_sequence(
        on, reward, challenger_share=0.5, alpha=0.05, tuned_for_units=2_000, burn_in=50
    )
    assert sequence.estimate[-1] == pytest.approx(fixed.estimate, abs=0.01)
    assert sequence.low[-1] < fixed.low < fixed.high < sequence.high[-1]
    with pytest.raises(ExperimentError, match="two in each"):
        welch(np.array([True, False, False]), np.ones(3), alpha=0.05)


def test_paired_bootstrap_agrees_with_the_normal_interval():
    random = np.random.default_rng(2)
    champion = random.random(400)
    challenger = champion + random.normal(0.05, 0.1, 400)
    found = paired_bootstrap(champion, challenger, alpha=0.05, draws=2_000, seed=1)
    differences = challenger - champion
    half = 1.96 * differences.std(ddof=1) / 20
    assert found.estimate == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.estimate - half, abs=0.002)
    assert found.high == pytest.approx(found.estimate + half, abs=0.002)
    with pytest.raises(ExperimentError, match="same items"):
        paired_bootstrap(champion, challenger[:3], alpha=0.05, draws=10, seed=1)


def test_outcomes_that_do_not_fit_are_refused_and_equal_ones_answered():
    on = np.array([True, True, False, False])
    found = welch(on, np.array([2.0, 2.0, 1.0, 1.0]), alpha=0.05)
    assert (found.low, found.estimate, found.high) == (1.0, 1.0, 1.0)
    for wrong in (np.ones(3), np.array([1.0, np.nan, 0.0, 1.0])):
        with pytest.raises(ExperimentError, match="belong together"):
            welch(on, wrong, alpha=0.05)
    with pytest.raises(ExperimentError, match="not a level"):
        welch(on, np.arange(4.0), alpha=0.0)
    with pytest.raises(ExperimentError, match="missing or infinite score"):
        paired_bootstrap(np.array([np.inf]), np.ones(1), alpha=0.05, draws=10, seed=1)
