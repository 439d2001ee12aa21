import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from data.errors import ExperimentError
from serving.experiments.inference.covariates import adjust, predictable_guesses
from serving.experiments.inference.intervals import anytime_difference, difference, mean_arms
from serving.experiments.inference.many_arms import arm_sequences
from serving.experiments.inference.sequences import UNBOUNDED, confidence_sequence


def users():
    """400 users, of uniform draws alone: those stay the same in every numpy."""
    u = np.random.default_rng(2018).random((7, 400))
    on = u[0] < 0.4
    before = u[1] + u[2]
    return on, before + u[3] + 0.1 * on, before


def correlated(random, units, correlation, *, lift=0.0, share=0.5):
    on = random.random(units) < share
    before = random.normal(size=units)
    noise = random.normal(size=units)
    return on, correlation * before + np.sqrt(1 - correlation**2) * noise + lift * on, before


def sequence(on, outcome, guesses, share):
    return confidence_sequence(
        on,
        outcome,
        challenger_share=share,
        alpha=0.05,
        tuned_for_units=500,
        burn_in=100 if share == 0.5 else 50,
        outcome_range=UNBOUNDED,
        first_guess=0.0,
        guesses=guesses,
    )


def ever_excludes(found, truth):
    return bool(((found.low > truth) | (found.high < truth)).any())


def slow_guesses(arm, outcome, columns, arms):
    """The docstring's regression, written out block by block with numpy's solver."""
    guesses = np.zeros((arms, len(outcome)))
    start = 0
    while start < len(outcome):
        end = max(start + 1, int(start * 1.05))
        now = slice(start, min(end, len(outcome)))
        past = slice(0, start)
        x, y, a = columns[:, past], outcome[past], arm[past]
        if start:
            inside_x, inside_y = x.copy(), y.copy()
            for number in range(arms):
                if (a == number).any():
                    inside_x[:, a == number] -= x[:, a == number].mean(axis=1, keepdims=True)
                    inside_y[a == number] -= y[a == number].mean()
            square = inside_x @ inside_x.T
            ridge = np.diag(np.diag(square) * 10 / start + (np.diag(square) < 1e-12))
            slopes = np.linalg.solve(square + ridge, inside_x @ inside_y)
            rest = y - slopes @ x
            for number in range(arms):
                mine = rest[a == number]
                level = (mine.sum() + rest.mean()) / (len(mine) + 1)
                guesses[number, now] = level + slopes @ columns[:, now]
            for t in range(now.start, now.stop):
                guesses[:, t] = np.clip(guesses[:, t], outcome[:t].min(), outcome[:t].max())
        start = end
    return guesses


def test_one_covariate_equals_tea_tasting():
    """tea-tasting 1.14.0, with ``on, after, before = users()``::

    table = pyarrow.table({"variant": on.astype(int), "after": after, "before": before})
    tea_tasting.Experiment(m=tea_tasting.Mean("after", "before")).analyze(table)["m"]

    gbstats 0.8.0 gives the same difference and interval, and the coefficient
    (``compute_theta``).
    """
    on, after, before = users()
    made = adjust(on, after, before)
    assert made.coefficients[0] == pytest.approx(0.9815456480993654, abs=1e-9)
    arms = mean_arms(on, made.outcome)
    assert arms.champion.estimate == pytest.approx(1.4809387357768113, abs=1e-9)
    assert arms.challenger.estimate == pytest.approx(1.5629289576925517, abs=1e-9)
    found = difference(arms, alpha=0.05)
    assert found.estimate == pytest.approx(0.08199022191574024, abs=1e-9)
    assert found.low == pytest.approx(0.026201182763520653, abs=1e-9)
    assert found.high == pytest.approx(0.13777926106795982, abs=1e-9)
    assert found.p == pytest.approx(0.0040869886882591066, abs=1e-9)


def test_looks_at_adjusted_outcomes_equal_gbstats():
    """gbstats 0.8.0: ``SequentialTwoSidedTTest`` of two ``RegressionAdjustedStatistic`` at 400.

    See test_intervals.py for the units to tune for.
    """
    wanted = -2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)
    exact = -float(special.lambertw(-(0.05**2) / np.e, k=-1).real) - 1
    on, after, before = users()
    found = anytime_difference(
        mean_arms(on, adjust(on, after, before).outcome),
        alpha=0.05,
        tuned_for_units=400 * exact / wanted,
    )
    assert found.low == pytest.approx(-0.004105999796516477, abs=1e-9)
    assert found.high == pytest.approx(0.16808644362799807, abs=1e-9)
    assert found.p == pytest.approx(0.07317872072483413, abs=1e-9)


def test_several_covariates_equal_numpys_least_squares():
    random = np.random.default_rng(1)
    on = random.random(500) < 0.3
    covariates = random.normal([[0.0], [1e6], [3.0]], [[1.0], [20.0], [1e-3]], (3, 500))
    outcome = np.array([1.0, 0.1, 500.0]) @ covariates + random.normal(size=500)
    design = np.vstack([np.ones(500), covariates - covariates.mean(axis=1, keepdims=True)]).T
    theirs = np.linalg.lstsq(design, outcome, rcond=None)[0]
    made = adjust(on, outcome, covariates)
    np.testing.assert_allclose(made.coefficients, theirs[1:], rtol=1e-9)
    np.testing.assert_allclose(
        made.outcome, outcome - design[:, 1:] @ theirs[1:], rtol=0, atol=1e-7
    )
    assert made.outcome.mean() == pytest.approx(outcome.mean(), rel=1e-12)


def test_new_units_get_the_mean_and_a_flag():
    on, after, before = users()
    known = before.copy()
    known[::5] = np.nan
    gone = np.isnan(known)
    filled = np.where(gone, known[~gone].mean(), known)
    by_hand = adjust(on, after, np.stack([filled, gone.astype(float)]))
    made = adjust(on, after, known)
    np.testing.assert_array_equal(made.outcome, by_hand.outcome)
    assert made.missing.tolist() == [80]
    assert len(made.coefficients) == 2
    whole = adjust(on, after, before).variance_cut
    assert 0.6 * whole < made.variance_cut < whole


def test_covariates_that_say_nothing_new_change_nothing():
    on, after, before = users()
    one = adjust(on, after, before)
    more = adjust(on, after, np.stack([before, 3.0 - 2.0 * before, np.full(400, 1e9)]))
    np.testing.assert_allclose(more.outcome, one.outcome, rtol=0, atol=1e-9)
    none = adjust(on, after, np.full(400, 7.0))
    np.testing.assert_array_equal(none.outcome, after)
    assert none.variance_cut == 0.0


def test_the_variance_cut_is_the_squared_correlation_and_the_level_holds():
    """Deng et al. 2013, equation 5: the variance that is left is 1 - correlation squared."""
    random = np.random.default_rng(5)
    cuts, wrong, estimates = [], 0, []
    for _ in range(2_000):
        on, outcome, before = correlated(random, 400, 0.7, lift=0.2)
        made = adjust(on, outcome, before)
        found = difference(mean_arms(on, made.outcome), alpha=0.05)
        cuts.append(made.variance_cut)
        estimates.append(found.estimate)
        wrong += not found.low <= 0.2 <= found.high
    assert np.mean(cuts) == pytest.approx(0.49, abs=0.01)
    assert np.mean(estimates) == pytest.approx(0.2, abs=0.006)
    # 5% with a standard error of 0.5 percentage points.
    assert 0.035 <= wrong / 2_000 <= 0.065


def test_any_number_of_looks_at_adjusted_outcomes_keep_the_level():
    """400 experiments, 25 looks each, the coefficient fitted anew at every look."""
    random = np.random.default_rng(13)
    wrong = 0
    for _ in range(400):
        on, outcome, before = correlated(random, 2_000, 0.7)
        for n in np.geomspace(200, 2_000, 25).astype(int):
            made = adjust(on[:n], outcome[:n], before[:n])
            found = anytime_difference(
                mean_arms(on[:n], made.outcome), alpha=0.05, tuned_for_units=1_000
            )
            if found.p < 0.05:
                wrong += 1
                break
    assert wrong / 400 <= 0.05


@pytest.mark.parametrize("arms", [2, 3])
def test_guesses_equal_the_regression_written_out_slowly(arms):
    random = np.random.default_rng(6)
    arm = random.integers(0, arms, 300)
    covariates = random.normal([[0.0], [50.0]], [[1.0], [4.0]], (2, 300))
    outcome = 100.0 + covariates[0] + 0.2 * covariates[1] + arm + random.normal(size=300)
    fast = predictable_guesses(arm, outcome, covariates, arms=arms)
    slow = slow_guesses(arm, outcome, covariates, arms)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-9)


def test_a_gap_is_filled_with_the_mean_of_earlier_units_and_flagged():
    random = np.random.default_rng(7)
    arm = random.integers(0, 2, 300)
    covariate = random.normal(size=300)
    covariate[random.random(300) < 0.3] = np.nan
    outcome = np.nan_to_num(covariate, nan=2.0) + random.normal(size=300)
    gone = np.isnan(covariate)
    filled = covariate.copy()
    for t in np.flatnonzero(gone):
        earlier = filled[:t][~gone[:t]]
        filled[t] = earlier.mean() if len(earlier) else covariate[np.argmin(gone)]
    slow = slow_guesses(arm, outcome, np.stack([filled, gone.astype(float)]), 2)
    fast = predictable_guesses(arm, outcome, covariate)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-9)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_guess_knows_only_the_past(seed, gaps):
    """Bit for bit: also the unit's own outcome, and who else will come, must not show."""
    random = np.random.default_rng(seed)
    arm, outcome = random.integers(0, 2, 90), random.random(90)
    covariates = random.normal(size=(2, 90))
    if gaps:
        covariates[random.random((2, 90)) < 0.2] = np.nan
    before = predictable_guesses(arm, outcome, covariates)
    cut = 60
    changed = outcome.copy()
    changed[cut:] = random.random(30)
    others = covariates.copy()
    others[:, cut + 1 :] = random.normal(size=(2, 29))
    arms = arm.copy()
    arms[cut:] = 1 - arms[cut:]
    after = predictable_guesses(arms, changed, others)
    if np.isnan(covariates).any(axis=1).tolist() == np.isnan(others).any(axis=1).tolist():
        np.testing.assert_array_equal(before[:, : cut + 1], after[:, : cut + 1])
    np.testing.assert_allclose(before[:, : cut + 1], after[:, : cut + 1], rtol=0, atol=1e-12)
    short = predictable_guesses(arm[:cut], outcome[:cut], covariates[:, :cut])
    np.testing.assert_allclose(short, before[:, :cut], rtol=0, atol=1e-12)


def test_units_of_measure_do_not_matter():
    random = np.random.default_rng(8)
    on, outcome, before = correlated(random, 500, 0.8)
    plain = predictable_guesses(on.astype(int), outcome, before)
    moved = predictable_guesses(on.astype(int), 3e5 * outcome + 1e8, 1e9 + 1e3 * before)
    np.testing.assert_allclose(moved[:, 1:], (3e5 * plain + 1e8)[:, 1:], rtol=1e-9)


@pytest.mark.parametrize(("correlation", "share"), [(0.7, 0.5), (0.7, 0.2), (0.0, 0.5)])
def test_the_sequence_gets_the_cut_and_keeps_the_level(correlation, share):
    """500 experiments with a lift of 0.1, looked at after each of 1,500 units."""
    random = np.random.default_rng(9)
    wrong, ratios = 0, []
    for _ in range(500):
        on, outcome, before = correlated(random, 1_500, correlation, lift=0.1, share=share)
        guesses = predictable_guesses(on.astype(int), outcome, before)
        found, plain = (sequence(on, outcome, each, share) for each in (guesses, None))
        wrong += ever_excludes(found, 0.1)
        ratios.append(((found.high[-1] - found.low[-1]) / (plain.high[-1] - plain.low[-1])) ** 2)
    assert wrong / 500 <= 0.05
    assert 1 - np.mean(ratios) == pytest.approx(correlation**2, abs=0.03)


def test_three_arms_take_the_guesses_too():
    random = np.random.default_rng(14)
    arm = random.integers(0, 3, 3_000)
    before = random.normal(size=3_000)
    outcome = 0.8 * before + 0.6 * random.normal(size=3_000) + np.array([0.0, 0.0, 0.3])[arm]
    _, better = arm_sequences(
        arm,
        outcome,
        shares=(1 / 3, 1 / 3, 1 / 3),
        alpha=0.05,
        tuned_for_units=2_000,
        burn_in=100,
        outcome_range=UNBOUNDED,
        first_guess=0.0,
        guesses=predictable_guesses(arm, outcome, before, arms=3),
    )
    assert better.low[-1] > 0


def test_useless_guesses_do_no_harm_to_the_level():
    """Heavy tails in the covariates, and a relation that turns round half way."""
    random = np.random.default_rng(10)
    wrong, late = 0, []
    for _ in range(400):
        on, outcome, _ = correlated(random, 1_500, 0.0)
        covariates = random.standard_cauchy((2, 1_500))
        sign = np.where(np.arange(1_500) < 700, 1.0, -1.0)
        outcome += sign * np.clip(covariates[0], -2.0, 2.0)
        guesses = predictable_guesses(on.astype(int), outcome, covariates)
        assert (guesses[:, 1:] >= np.minimum.accumulate(outcome)[:-1]).all()
        found = sequence(on, outcome, guesses, 0.5)
        wrong += ever_excludes(found, 0.0)
        late.append(found.estimate[-1])
    assert wrong / 400 <= 0.05
    assert abs(np.mean(late)) <= 4 * np.std(late) / 20


def test_a_million_units_are_adjusted_for_what_was_known_before():
    random = np.random.default_rng(11)
    on = random.random(1_000_000) < 0.5
    covariates = random.normal(size=(3, 1_000_000))
    outcome = covariates.sum(axis=0) + random.normal(size=1_000_000)
    assert adjust(on, outcome, covariates).variance_cut == pytest.approx(0.75, abs=0.01)
    guesses = predictable_guesses(on.astype(int), outcome, covariates)
    rest = outcome - np.where(on, guesses[1], guesses[0])
    assert rest.var() == pytest.approx(1.0, abs=0.01)


def test_few_units_have_a_defined_answer():
    assert predictable_guesses(np.zeros(0, dtype=int), np.zeros(0), np.zeros((1, 0))).shape == (
        2,
        0,
    )
    one = predictable_guesses(np.array([1]), np.array([5.0]), np.array([2.0]), first_guess=0.5)
    np.testing.assert_array_equal(one, [[0.5], [0.5]])
    lonely = predictable_guesses(np.zeros(30, dtype=int), np.full(30, 3.0), np.full(30, np.nan))
    np.testing.assert_allclose(lonely[:, 1:], 3.0)


@pytest.mark.parametrize(
    ("outcome", "covariates", "said"),
    [
        (np.arange(6.0), np.ones(5), "covariates have shape"),
        (np.arange(6.0), np.ones((0, 6)), "at least one covariate"),
        (np.arange(6.0), np.ones((1, 1, 6)), "covariates have shape"),
        (np.arange(6.0), np.array([1.0, 2.0, np.inf, 4.0, 5.0, 6.0]), "infinite"),
        (np.array([1.0, np.nan, 3.0, 4.0, 5.0, 6.0]), np.ones(6), "finite"),
        (np.arange(5.0), np.ones(5), "shape"),
    ],
)
def test_bad_input_is_refused(outcome, covariates, said):
    on = np.array([True, False] * 3)
    with pytest.raises(ExperimentError, match=said):
        adjust(on, outcome, covariates)
    with pytest.raises(ExperimentError, match=said):
        predictable_guesses(on.astype(int), outcome, covariates)


def test_a_covariate_nobody_has_and_too_many_are_refused():
    on = np.array([True, False] * 3)
    with pytest.raises(ExperimentError, match="covariate 1 is missing for all 6"):
        adjust(on, np.arange(6.0), np.stack([np.arange(6.0), np.full(6, np.nan)]))
    with pytest.raises(ExperimentError, match="too few for 4"):
        adjust(on, np.arange(6.0), np.random.default_rng(0).random((4, 6)))


@pytest.mark.parametrize(
    "arm", [np.array([0, 1, 2]), np.array([0, -1, 1]), np.array([0.0, 1.0, 1.0])]
)
def test_strange_arms_are_refused(arm):
    with pytest.raises(ExperimentError, match="whole numbers from 0 to 1"):
        predictable_guesses(arm, np.arange(3.0), np.arange(3.0))
