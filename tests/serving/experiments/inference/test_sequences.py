import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.sequences import (
    UNBOUNDED,
    confidence_sequence,
    mean_sequence,
    pseudo_outcomes,
)

BURN_IN = 50
UNITS = 2_000
SIMULATIONS = 2_000


def slow_sequence(challenger, reward, share, alpha, units, burn_in):
    """The paper's formulas, written out unit by unit."""
    rho2 = best_rho(units, alpha) ** 2
    guesses, rows = [], []
    for t, (on, value) in enumerate(zip(challenger, reward, strict=True), start=1):
        past = list(zip(challenger[: t - 1], reward[: t - 1], strict=True))
        ons = [r for a, r in past if a]
        offs = [r for a, r in past if not a]
        f1 = (0.5 + sum(ons)) / (1 + len(ons))
        f0 = (0.5 + sum(offs)) / (1 + len(offs))
        correction = (value - f1) / share if on else -(value - f0) / (1 - share)
        guesses.append(f1 - f0 + correction)
        mean = sum(guesses) / t
        variance = sum((g - mean) ** 2 for g in guesses) / max(t - 1, 1)
        radius = np.sqrt(
            variance * 2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / alpha)
        )
        seen = sum(challenger[:t])
        early = min(seen, t - seen) < burn_in
        low, high = (-1, 1) if early else (max(mean - radius, -1), min(mean + radius, 1))
        rows.append((mean, low, high))
    return np.asarray(rows).T


def simulate(seed, champion, challenger, *, share=0.5, simulations=SIMULATIONS, units=UNITS):
    """Bernoulli rewards of many experiments at once, in pieces that fit in memory."""
    random = np.random.default_rng(seed)
    for start in range(0, simulations, 250):
        shape = (min(250, simulations - start), units)
        on = random.random(shape) < share
        yield on, (random.random(shape) < np.where(on, challenger, champion)).astype(np.float64)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equals_the_formulas_written_out_slowly(share):
    random = np.random.default_rng(3)
    on = random.random(300) < share
    reward = random.random(300)
    fast = confidence_sequence(
        on, reward, challenger_share=share, alpha=0.05, tuned_for_units=200, burn_in=5
    )
    mean, low, high = slow_sequence(on, reward, share, 0.05, 200, 5)
    np.testing.assert_allclose(fast.estimate, mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fast.low, low, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fast.high, high, rtol=0, atol=1e-9)
    assert (fast.low > -1).any()


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.5), (0.8, 0.5), (0.7, 0.2)])
def test_peeking_at_every_unit_keeps_the_level(rate, share):
    """2,000 A/A experiments of 2,000 units, looked at after each unit from 50 units per arm on."""
    excluded = 0
    for on, reward in simulate(11, rate, rate, share=share):
        found = confidence_sequence(
            on, reward, challenger_share=share, alpha=0.05, tuned_for_units=500, burn_in=BURN_IN
        )
        excluded += int(((found.low > 0) | (found.high < 0)).any(axis=-1).sum())
    assert excluded / SIMULATIONS <= 0.05


def test_peeking_with_a_fixed_size_interval_does_not_keep_it():
    """Why the sequence is needed: each look at the same experiments is taken for the last."""
    excluded = 0
    for on, reward in simulate(11, 0.7, 0.7, simulations=250):
        guesses = pseudo_outcomes(on, reward, challenger_share=0.5)
        n = np.arange(1, UNITS + 1)
        mean = np.cumsum(guesses, axis=-1) / n
        spread = np.sqrt(np.maximum(np.cumsum(guesses**2, axis=-1) / n - mean**2, 0) / n)
        outside = np.abs(mean) > 1.96 * spread
        excluded += int(outside[:, 2 * BURN_IN :].any(axis=-1).sum())
    assert excluded / 250 > 0.2


def test_a_true_lift_is_covered_and_found():
    covered, found = 0, 0
    for on, reward in simulate(5, 0.6, 0.72, simulations=500):
        sequence = confidence_sequence(
            on, reward, challenger_share=0.5, alpha=0.05, tuned_for_units=1_000, burn_in=BURN_IN
        )
        inside = (sequence.low <= 0.12) & (sequence.high >= 0.12)
        covered += int(inside.all(axis=-1).sum())
        found += int((sequence.low[:, -1] > 0).sum())
    assert covered / 500 >= 0.95
    assert found / 500 >= 0.9


def test_the_running_intersection_only_narrows():
    on, reward = next(simulate(9, 0.6, 0.7, simulations=5))
    arguments = {"challenger_share": 0.5, "alpha": 0.05, "tuned_for_units": 500, "burn_in": 30}
    plain = confidence_sequence(on, reward, **arguments)
    narrowed = confidence_sequence(on, reward, **arguments, running_intersection=True)
    assert (np.diff(narrowed.low, axis=-1) >= 0).all()
    assert (np.diff(narrowed.high, axis=-1) <= 0).all()
    assert (narrowed.high - narrowed.low <= plain.high - plain.low + 1e-12).all()
    assert (narrowed.high - narrowed.low < plain.high - plain.low - 1e-6).any()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_pseudo_outcome_knows_only_the_past(seed):
    random = np.random.default_rng(seed)
    on, reward = random.random(40) < 0.5, random.random(40)
    before = pseudo_outcomes(on, reward, challenger_share=0.5)
    changed = reward.copy()
    changed[25:] = random.random(15)
    after = pseudo_outcomes(on, changed, challenger_share=0.5)
    np.testing.assert_array_equal(before[:25], after[:25])
    assert not np.array_equal(before[25:], after[25:])


def test_nothing_is_said_before_the_burn_in():
    on = np.arange(200) % 2 == 0
    found = confidence_sequence(
        on, np.ones(200), challenger_share=0.5, alpha=0.05, tuned_for_units=100, burn_in=60
    )
    assert (found.low[:119] == -1).all()
    assert found.low[119] > -1


@pytest.mark.parametrize("reward", [np.array([0.5, np.nan]), np.array([0.5, 1.2])])
def test_rewards_out_of_range_are_refused(reward):
    with pytest.raises(ExperimentError, match="outside 0"):
        confidence_sequence(
            np.array([True, False]),
            reward,
            challenger_share=0.5,
            alpha=0.05,
            tuned_for_units=10,
            burn_in=1,
        )


@pytest.mark.parametrize("share", [0.0, 1.0, float("nan")])
def test_an_arm_without_a_share_is_refused(share):
    with pytest.raises(ExperimentError, match="share"):
        pseudo_outcomes(np.array([True]), np.array([1.0]), challenger_share=share)


SETTINGS = {"challenger_share": 0.5, "alpha": 0.05, "tuned_for_units": 500, "burn_in": BURN_IN}


def test_a_sequence_of_any_range_is_the_same_one_scaled():
    """Outcomes in 0 … 1 and the same in milliseconds: the interval is scaled with them."""
    on, _ = next(simulate(4, 0.5, 0.5, simulations=3))
    reward = np.random.default_rng(4).random(on.shape)
    small = confidence_sequence(on, reward, **SETTINGS)
    large = confidence_sequence(
        on, 200 + 300 * reward, **SETTINGS, outcome_range=UNBOUNDED, first_guess=350.0
    )
    said = np.isfinite(large.low)
    np.testing.assert_allclose(large.estimate, 300 * small.estimate, rtol=0, atol=1e-9)
    np.testing.assert_allclose(large.low[said], 300 * small.low[said], rtol=0, atol=1e-9)
    assert (small.low[~said] == -1).all()
    assert not said[:, : 2 * BURN_IN - 1].any()
    np.testing.assert_array_equal(np.isposinf(large.high), ~said)


@pytest.mark.parametrize(("alternative", "end"), [("greater", "low"), ("less", "high")])
def test_a_one_sided_sequence_keeps_its_level_and_is_nearer(alternative, end):
    crossed = 0
    for on, reward in simulate(12, 0.7, 0.7):
        found = confidence_sequence(on, reward, **SETTINGS, alternative=alternative)
        both = confidence_sequence(on, reward, **SETTINGS)
        lows, highs = found.low > 0, found.high < 0
        crossed += int((lows | highs).any(axis=-1).sum())
        inner = np.abs(getattr(found, end) - found.estimate)[:, 499]
        assert (inner < np.abs(getattr(both, end) - both.estimate)[:, 499]).all()
        other = found.high if end == "low" else found.low
        assert (np.abs(other) == 1).all()
    assert 0.01 < crossed / SIMULATIONS <= 0.05


@pytest.mark.parametrize("effect", [0.0, 0.1])
def test_latencies_with_heavy_tails_keep_the_level(effect):
    random = np.random.default_rng(8)
    missed = 0
    for _ in range(10):
        on = random.random((100, UNITS)) < 0.5
        latency = np.exp(random.normal(5.0, 0.8, on.shape)) * np.where(on, 1 + effect, 1.0)
        truth = effect * np.exp(5.0 + 0.32)
        found = confidence_sequence(
            on,
            latency,
            **SETTINGS,
            outcome_range=UNBOUNDED,
            first_guess=200.0,
            min_effective=EFFECTIVE,
        )
        missed += int(((found.low > truth) | (found.high < truth)).any(axis=-1).sum())
    assert missed / 1_000 <= 0.05


def test_rare_outcomes_and_a_small_share_need_effective_units():
    """2% of outcomes are 1 and a tenth of the units is the challenger's: units alone mislead."""
    missed = {0.0: 0, EFFECTIVE: 0}
    for on, reward in simulate(6, 0.02, 0.02, share=0.1, simulations=500, units=8_000):
        for least in missed:
            found = confidence_sequence(
                on,
                reward,
                challenger_share=0.1,
                alpha=0.05,
                tuned_for_units=2_000,
                burn_in=100,
                min_effective=least,
            )
            missed[least] += int(((found.low > 0) | (found.high < 0)).any(axis=-1).sum())
    assert missed[0.0] / 500 > 0.07
    assert missed[EFFECTIVE] / 500 <= 0.05


def test_good_guesses_narrow_the_interval_and_bad_ones_keep_it_true():
    random = np.random.default_rng(15)
    on = random.random((200, UNITS)) < 0.5
    covariate = random.normal(size=on.shape)
    reward = 1.0 + covariate + 0.1 * on + random.normal(0.0, 0.5, on.shape)
    wide = {**SETTINGS, "outcome_range": UNBOUNDED}
    plain = confidence_sequence(on, reward, **wide, first_guess=1.0)
    good = confidence_sequence(
        on, reward, **wide, guesses=np.stack([1.0 + covariate, 1.1 + covariate])
    )
    bad = confidence_sequence(
        on, reward, **wide, guesses=np.stack([covariate - 2.0, 3.0 - covariate])
    )
    widths = [(one.high - one.low)[:, -1].mean() for one in (plain, good, bad)]
    # The variance falls from 1.25 to 0.25 where the covariate is known.
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(0.2), abs=0.02)
    assert widths[2] > widths[0]
    for found in (plain, good, bad):
        inside = (found.low <= 0.1) & (found.high >= 0.1)
        assert inside.all(axis=-1).mean() >= 0.95


def test_guesses_of_running_means_are_the_default():
    on, reward = next(simulate(31, 0.6, 0.7, simulations=2, units=300))
    means = []
    for arm in (~on, on):
        seen = np.cumsum(arm, axis=-1) - arm
        means.append((0.5 + np.cumsum(arm * reward, axis=-1) - arm * reward) / (1 + seen))
    given_them = pseudo_outcomes(on, reward, challenger_share=0.5, guesses=np.stack(means))
    np.testing.assert_array_equal(given_them, pseudo_outcomes(on, reward, challenger_share=0.5))


def test_a_share_may_change_from_unit_to_unit():
    random = np.random.default_rng(41)
    share = np.where(np.arange(UNITS) < 1_000, 0.1, 0.5)
    on = random.random((400, UNITS)) < share
    # Outcomes rise as the share does: arms' plain means would differ by 0.06.
    reward = (random.random(on.shape) < 0.4 + 0.4 * (share > 0.3)).astype(np.float64)
    found = confidence_sequence(on, reward, **{**SETTINGS, "challenger_share": share})
    assert abs(found.estimate[:, -1].mean()) < 0.005
    assert ((found.low <= 0) & (found.high >= 0)).all(axis=-1).mean() >= 0.95


def test_the_sequence_of_one_mean_is_the_formula_of_the_paper():
    values = np.random.default_rng(2).normal(0.3, 1.0, 400)
    found = mean_sequence(values, alpha=0.05, tuned_for_units=300, burn_in=10)
    rho2 = best_rho(300, 0.05) ** 2
    for t in (10, 100, 400):
        mean, deviation = values[:t].mean(), values[:t].std(ddof=1)
        radius = deviation * np.sqrt(
            2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / 0.05)
        )
        assert found.low[t - 1] == pytest.approx(mean - radius, abs=1e-9)
        assert found.high[t - 1] == pytest.approx(mean + radius, abs=1e-9)
    assert np.isneginf(found.low[:9]).all()


@given(
    st.integers(1, 60),
    st.floats(-1e6, 1e6),
    st.sampled_from(["two-sided", "greater", "less"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_every_interval_holds_its_estimate_and_stays_in_range(units, start, alternative, seed):
    random = np.random.default_rng(seed)
    on = random.random(units) < 0.5
    reward = start + random.random(units)
    found = confidence_sequence(
        on,
        reward,
        **{**SETTINGS, "burn_in": 2},
        alternative=alternative,
        outcome_range=(start - 1.0, start + 2.0),
        min_effective=2.0,
    )
    said = (found.low > -3) | (found.high < 3)
    inside = (found.low <= found.estimate) & (found.estimate <= found.high)
    assert (inside | (np.abs(found.estimate) > 3) | ~said).all()
    assert (np.abs(found.low) <= 3).all()
    assert (np.abs(found.high) <= 3).all()


def test_no_unit_one_unit_and_no_variance_have_answers():
    nothing = confidence_sequence(np.zeros(0, dtype=bool), np.zeros(0), **SETTINGS)
    assert nothing.n.size == nothing.low.size == 0
    one = confidence_sequence(np.array([True]), np.array([1.0]), **SETTINGS)
    assert (one.low[0], one.high[0]) == (-1.0, 1.0)
    on = np.arange(400) % 2 == 0
    same = confidence_sequence(on, np.ones(400), **SETTINGS, min_effective=EFFECTIVE)
    assert (same.low == -1.0).all()


def test_a_million_units_are_a_matter_of_a_second():
    random = np.random.default_rng(1)
    on = random.random(1_000_000) < 0.5
    found = confidence_sequence(on, random.random(on.size), **SETTINGS, min_effective=EFFECTIVE)
    assert found.high[-1] - found.low[-1] < 0.01


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"burn_in": 0}, "burn_in=0"),
        ({"min_effective": -1.0}, "min_effective=-1.0"),
        ({"min_effective": float("nan")}, "min_effective=nan"),
        ({"tuned_for_units": 0}, "tuned_for_units=0"),
        ({"alpha": 1.0}, "not a level"),
        ({"alternative": "both"}, "alternative='both'"),
        ({"challenger_share": np.array([0.5, 0.0])}, "share"),
        ({"outcome_range": UNBOUNDED}, "first_guess"),
        ({"outcome_range": (1.0, 0.0)}, "is empty"),
        ({"guesses": np.zeros((3, 2))}, "guesses has the shape"),
        ({"guesses": np.array([[0.0, 0.0], [0.0, np.nan]])}, "guesses has 1 values"),
    ],
)
def test_bad_arguments_are_refused(change, word):
    outcomes = np.array([0.0, 1.0])
    if "first_guess" in word or "empty" in word:
        outcomes = np.array([])
    on = np.array([True, False])[: outcomes.size]
    with pytest.raises(ExperimentError, match=word):
        confidence_sequence(on, outcomes, **{**SETTINGS, **change})


@pytest.mark.parametrize(
    ("on", "reward", "word"),
    [
        (np.array([True]), np.array([0.0, 1.0]), "one value per unit"),
        (np.array([True, False, True]), np.array([0.0, 1.0]), "one value per unit"),
        (np.array([1, 0]), np.array([0.0, 1.0]), "True where the challenger"),
        (np.array([True, False]), np.array([0.0, np.inf]), "outside 0"),
    ],
)
def test_units_that_do_not_fit_are_refused(on, reward, word):
    with pytest.raises(ExperimentError, match=word):
        confidence_sequence(on, reward, **SETTINGS)
