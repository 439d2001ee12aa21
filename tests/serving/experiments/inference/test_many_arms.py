import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.inference.many_arms import arm_sequences
from serving.experiments.inference.sequences import confidence_sequence

SETTINGS = {"alpha": 0.05, "tuned_for_units": 1_500, "burn_in": 50}


def deal(random, shares, rates, *, runs, units):
    arm = random.choice(len(shares), size=(runs, units), p=shares)
    reward = (random.random(arm.shape) < np.asarray(rates)[arm]).astype(np.float64)
    return arm, reward


def test_two_arms_are_the_plain_sequence():
    arm, reward = deal(np.random.default_rng(1), (0.7, 0.3), (0.5, 0.6), runs=3, units=800)
    (found,) = arm_sequences(arm, reward, shares=(0.7, 0.3), **SETTINGS, min_effective=10.0)
    plain = confidence_sequence(
        arm == 1, reward, challenger_share=0.3, **SETTINGS, min_effective=10.0
    )
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=0, atol=1e-9)


@pytest.mark.parametrize("family_wise", [True, False])
def test_all_challengers_together_keep_the_level(family_wise):
    """1,000 A/A/A/A experiments; without Bonferroni at least one of three strays more often."""
    random = np.random.default_rng(7)
    shares, strayed = (0.4, 0.2, 0.2, 0.2), 0
    for _ in range(5):
        arm, reward = deal(random, shares, (0.7,) * 4, runs=200, units=3_000)
        found = arm_sequences(arm, reward, shares=shares, **SETTINGS, family_wise=family_wise)
        out = [((one.low > 0) | (one.high < 0)).any(axis=-1) for one in found]
        strayed += int(np.any(out, axis=0).sum())
    assert strayed / 1_000 <= (0.05 if family_wise else 0.15)
    assert family_wise or strayed / 1_000 > 0.05


def test_true_differences_are_covered():
    random = np.random.default_rng(9)
    shares, rates = (0.5, 0.3, 0.2), (0.6, 0.7, 0.55)
    arm, reward = deal(random, shares, rates, runs=300, units=3_000)
    found = arm_sequences(arm, reward, shares=shares, **SETTINGS)
    inside = [
        ((one.low <= rate - 0.6) & (one.high >= rate - 0.6)).all(axis=-1)
        for one, rate in zip(found, rates[1:], strict=True)
    ]
    assert np.all(inside, axis=0).mean() >= 0.95
    assert found[0].estimate[:, -1].mean() == pytest.approx(0.1, abs=0.005)
    assert found[1].estimate[:, -1].mean() == pytest.approx(-0.05, abs=0.005)


def test_guesses_may_come_from_outside():
    arm, reward = deal(np.random.default_rng(2), (0.5, 0.25, 0.25), (0.5,) * 3, runs=2, units=500)
    guesses = np.full((3, *reward.shape), 0.5)
    found = arm_sequences(arm, reward, shares=(0.5, 0.25, 0.25), **SETTINGS, guesses=guesses)
    expected = np.where(arm == 1, 4.0, np.where(arm == 0, -2.0, 0.0)) * (reward - 0.5)
    np.testing.assert_allclose(found[0].estimate[:, -1], expected.mean(axis=-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shares": (1.0,)}, "at least two arms a share each"),
        ({"shares": (0.5, 0.4, 0.2)}, "add up to"),
        ({"shares": (1.0, 0.0, 0.0)}, "share"),
        ({"arm": np.array([0, 1, 3])}, "number the arms 0"),
        ({"arm": np.array([0.0, 1.0, 2.0])}, "number the arms 0"),
        ({"arm": np.array([0, 1])}, "one value per unit"),
        ({"reward": np.array([0.0, np.nan, 1.0])}, "outside 0"),
        ({"guesses": np.zeros((2, 3))}, "one finite guess"),
        ({"burn_in": 0}, "burn_in=0"),
    ],
)
def test_bad_arguments_are_refused(change, word):
    arguments = {
        "arm": np.array([0, 1, 2]),
        "reward": np.array([0.0, 1.0, 1.0]),
        "shares": (0.4, 0.3, 0.3),
        **SETTINGS,
    }
    with pytest.raises(ExperimentError, match=word):
        arm_sequences(**(arguments | change))
