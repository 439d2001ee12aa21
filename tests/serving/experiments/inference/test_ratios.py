from dataclasses import astuple
from functools import partial

import numpy as np
import pytest
from scipy import special

from data.errors import ExperimentError
from serving.experiments.inference.intervals import (
    anytime_difference,
    difference,
    mean_arms,
    relative_difference,
)
from serving.experiments.inference.ratios import (
    adjusted_ratio_arms,
    capped_sums,
    linearised,
    ratio_arms,
    ratio_of,
    ratio_sequence,
    unit_sums,
)
from serving.experiments.inference.sequences import UNBOUNDED, confidence_sequence


def users():
    """400 users with answers and right answers, of uniform draws alone."""
    u = np.random.default_rng(2018).random((7, 400))
    on = u[0] < 0.4
    answers = np.floor(1 + 5 * u[4])
    right = np.floor(answers * (0.5 * u[5] + 0.3 * u[6] + 0.1 * on) + 0.5)
    answers_before = np.floor(4 * u[6])
    return on, right, answers, np.floor(answers_before * u[5] + 0.5), answers_before


GAP = 0.09905
"""What ``better=0.1`` adds to the mean of Beta(2, 2): a little is cut off at 1."""


def clustered(random, units, *, more=0, better=0.0):
    """Users who differ in how much they ask and in how often they are answered rightly."""
    on = random.random(units) < 0.5
    answers = random.geometric(0.25, units) + more * on
    skill = np.clip(random.beta(2.0, 2.0, units) + better * on, 0.0, 1.0)
    return on, random.binomial(answers, skill).astype(float), answers.astype(float)


def ever_excludes_zero(on, values):
    """Of the sequence of means, run over one value per unit."""
    found = confidence_sequence(
        on,
        values,
        challenger_share=0.5,
        alpha=0.05,
        tuned_for_units=500,
        burn_in=100,
        outcome_range=UNBOUNDED,
        first_guess=0.0,
    )
    return bool(((found.low > 0) | (found.high < 0)).any())


def test_ratios_equal_tea_tasting():
    """tea-tasting 1.14.0, with ``on, right, answers, *_ = users()``::

    table = pyarrow.table({"variant": on.astype(int), "right": right, "answers": answers})
    tea_tasting.Experiment(m=tea_tasting.RatioOfMeans("right", "answers")).analyze(table)["m"]

    gbstats 0.8.0 (``RatioStatistic``, ``TwoSidedTTest``) gives the same difference and interval.
    """
    on, right, answers, *_ = users()
    arms = ratio_arms(on, right, answers)
    assert arms.champion.estimate == pytest.approx(0.407563025210084, abs=1e-9)
    assert arms.challenger.estimate == pytest.approx(0.5217391304347826, abs=1e-9)
    found = difference(arms, alpha=0.05)
    assert found.estimate == pytest.approx(0.11417610522469862, abs=1e-9)
    assert found.low == pytest.approx(0.06878432486434295, abs=1e-9)
    assert found.high == pytest.approx(0.1595678855850543, abs=1e-9)
    assert found.p == pytest.approx(1.1775439443410533e-06, abs=1e-12)
    lift = relative_difference(arms, alpha=0.05)
    assert lift.estimate == pytest.approx(0.2801434334379205, abs=1e-9)
    assert lift.low == pytest.approx(0.16109867532221922, abs=1e-9)
    assert lift.high == pytest.approx(0.4113935748996089, abs=1e-9)


def test_adjusted_ratios_equal_tea_tasting():
    """tea-tasting 1.14.0, as above, with the last two of ``users()`` as columns too::

    tea_tasting.RatioOfMeans("right", "answers", "right_before", "answers_before")
    """
    on, right, answers, right_before, answers_before = users()
    arms = adjusted_ratio_arms(
        on,
        right,
        answers,
        covariate_numerator=right_before,
        covariate_denominator=answers_before,
    )
    assert arms.champion.estimate == pytest.approx(0.4026782389075155, abs=1e-9)
    assert arms.challenger.estimate == pytest.approx(0.5291844902024072, abs=1e-9)
    found = difference(arms, alpha=0.05)
    assert found.low == pytest.approx(0.08858366084709943, abs=1e-9)
    assert found.high == pytest.approx(0.16442884174268405, abs=1e-9)
    assert found.p == pytest.approx(1.8978067552175567e-10, abs=1e-15)


def test_a_denominator_of_ones_is_a_mean():
    on, right, *_ = users()
    ratios = difference(ratio_arms(on, right, np.ones(400)), alpha=0.05)
    means = difference(mean_arms(on, right), alpha=0.05)
    assert astuple(ratios) == pytest.approx(astuple(means), rel=1e-12)


def test_the_interval_knows_of_clusters():
    """1,500 A/A experiments of 400 users: taking answers for units is wrong thrice as often."""
    random = np.random.default_rng(1)
    wrong = naive = 0
    for _ in range(1_500):
        on, right, answers = clustered(random, 400)
        arms = ratio_arms(on, right, answers)
        wrong += difference(arms, alpha=0.05).p < 0.05
        share = right.sum() / answers.sum()
        bare = np.sqrt(share * (1 - share) * (1 / answers[on].sum() + 1 / answers[~on].sum()))
        naive += abs(arms.challenger.estimate - arms.champion.estimate) > 1.96 * bare
    # 5% with a standard error of 0.56 percentage points.
    assert 0.033 <= wrong / 1_500 <= 0.067
    assert naive / 1_500 > 0.15


def test_what_came_before_narrows_a_ratio():
    random = np.random.default_rng(2)
    widths, wrong = [], 0
    for _ in range(300):
        on = random.random(600) < 0.5
        skill = random.beta(0.8, 0.8, 600)
        answers, earlier = random.geometric(0.2, (2, 600))
        earlier[random.random(600) < 0.2] = 0
        right, before = random.binomial(answers, skill), random.binomial(earlier, skill)
        plain = ratio_arms(on, right.astype(float), answers.astype(float))
        arms = adjusted_ratio_arms(
            on,
            right.astype(float),
            answers.astype(float),
            covariate_numerator=before.astype(float),
            covariate_denominator=earlier.astype(float),
        )
        found = difference(arms, alpha=0.05)
        wrong += not found.low <= 0.0 <= found.high
        widths.append(found.standard_error / difference(plain, alpha=0.05).standard_error)
    assert np.mean(widths) < 0.92
    assert wrong / 300 <= 0.09


def test_unit_sums_add_up_in_any_order_and_with_sparse_numbers():
    random = np.random.default_rng(3)
    unit, values = random.integers(0, 50, 400) * 10**12, random.random(400)
    count, total = unit_sums(unit, values)
    for number, name in enumerate(np.unique(unit)):
        assert count[number] == (unit == name).sum()
        assert total[number] == pytest.approx(values[unit == name].sum())
    plain = unit_sums(unit // 10**12, values)
    np.testing.assert_allclose(plain[1], total)
    assert all(len(part) == 0 for part in unit_sums(np.zeros(0, dtype=int), np.zeros(0)))


def test_linearised_values_differ_as_the_ratio_does():
    """Budylin et al. 2018: at the champion's ratio, by the ratios' difference times the mean."""
    on, right, answers, *_ = users()
    arms = ratio_arms(on, right, answers)
    values = linearised(
        right, answers, ratio=arms.champion.estimate, mean_denominator=answers[on].mean()
    )
    assert values[~on].mean() == pytest.approx(0.0, abs=1e-12)
    assert values[on].mean() == pytest.approx(
        arms.challenger.estimate - arms.champion.estimate, abs=1e-12
    )


def test_at_its_own_ratio_the_linearised_spread_is_the_delta_methods():
    on, right, answers, *_ = users()
    alone = ratio_of(right[on], answers[on])
    values = linearised(
        right[on], answers[on], ratio=alone.estimate, mean_denominator=answers[on].mean()
    )
    assert values.std(ddof=1) / np.sqrt(len(values)) == pytest.approx(alone.standard_error)


@pytest.mark.parametrize(
    ("share", "alternative"),
    [(0.5, "two-sided"), (0.15, "two-sided"), (0.5, "greater"), (0.3, "less")],
)
def test_the_sequence_is_a_look_after_every_unit(share, alternative):
    random = np.random.default_rng(7)
    _, right, answers = clustered(random, 600)
    answers[random.random(600) < 0.1] = 0.0
    right = np.minimum(right, answers)
    on = random.random(600) < share
    sequence = ratio_sequence(
        on,
        right,
        answers,
        alpha=0.05,
        tuned_for_units=400,
        burn_in=20,
        min_effective=0.0,
        alternative=alternative,
    )
    spoken = np.flatnonzero(np.isfinite(sequence.low) | np.isfinite(sequence.high))
    assert spoken[0] == np.flatnonzero(np.minimum(np.cumsum(on), np.cumsum(~on)) >= 20)[0]
    for t in (*spoken[:3], 300, 599):
        arms = ratio_arms(on[: t + 1], right[: t + 1], answers[: t + 1])
        look = anytime_difference(arms, alpha=0.05, tuned_for_units=400, alternative=alternative)
        assert sequence.estimate[t] == pytest.approx(look.estimate, abs=1e-9)
        assert sequence.low[t] == pytest.approx(look.low, abs=1e-9)
        assert sequence.high[t] == pytest.approx(look.high, abs=1e-9)


def test_the_sequence_equals_gbstats():
    """gbstats 0.8.0 (numpy 1.26.4), at 400 units, with ``on, right, answers, *_ = users()``::

        RatioStatistic(n=..., m_statistic=mean(right[s]), d_statistic=mean(answers[s]),
                       m_d_sum_of_products=(right * answers)[s].sum())   # s: ~on, then on
        SequentialTwoSidedTTest(a, b, SequentialConfig("absolute", sequential_tuning_parameter=400))

    See test_intervals.py for the units to tune for.
    """
    wanted = -2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)
    exact = -float(special.lambertw(-(0.05**2) / np.e, k=-1).real) - 1
    on, right, answers, *_ = users()
    sequence = ratio_sequence(
        on, right, answers, alpha=0.05, tuned_for_units=400 * exact / wanted, burn_in=30
    )
    assert sequence.low[-1] == pytest.approx(0.044128556537506816, abs=1e-9)
    assert sequence.high[-1] == pytest.approx(0.18422365391189033, abs=1e-9)


def test_effective_units_are_waited_for():
    random = np.random.default_rng(8)
    on, right, answers = clustered(random, 4_000)
    rare = right * (random.random(4_000) < 0.05)
    arguments = {"alpha": 0.05, "tuned_for_units": 400, "burn_in": 20}
    early = ratio_sequence(on, rare, answers, **arguments, min_effective=0.0)
    late = ratio_sequence(on, rare, answers, **arguments, min_effective=5.0)
    assert np.isfinite(late.low).sum() < np.isfinite(early.low).sum()
    assert late.low[-1] == early.low[-1]


@pytest.mark.parametrize("more", [0, 2])
def test_the_sequence_keeps_the_level_whatever_the_denominators_do(more):
    """1,000 experiments in which the ratios are equal, looked at after each of 1,500 users.

    With ``more`` the challenger draws two more answers from each, rightly answered as often.
    """
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(1_000):
        on, right, answers = clustered(random, 1_500, more=more)
        found = ratio_sequence(on, right, answers, alpha=0.05, tuned_for_units=500, burn_in=100)
        wrong += ((found.low > 0) | (found.high < 0)).any()
    assert wrong / 1_000 <= 0.05


def test_the_sequence_finds_a_better_challenger_and_covers_the_difference():
    random = np.random.default_rng(6)
    found, covered = 0, 0
    for _ in range(200):
        on, right, answers = clustered(random, 4_000, better=0.1)
        sequence = ratio_sequence(
            on, right, answers, alpha=0.05, tuned_for_units=2_000, burn_in=100
        )
        found += sequence.low[-1] > 0
        covered += ((sequence.low <= GAP) & (sequence.high >= GAP)).all()
    assert found / 200 >= 0.95
    assert covered / 200 >= 0.95


@pytest.mark.parametrize(("planned", "more"), [(0.5, 2), (0.4, 0)])
def test_linearised_values_keep_the_level_at_the_right_ratio_or_with_equal_denominators(
    planned, more
):
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(500):
        on, right, answers = clustered(random, 1_500, more=more)
        values = linearised(right, answers, ratio=planned, mean_denominator=4.0)
        wrong += ever_excludes_zero(on, values)
    assert wrong / 500 <= 0.05


def test_linearised_values_at_a_wrong_ratio_take_more_answers_for_an_effect():
    """The module's caution: the ratios are equal, and the sequence says that they are not."""
    random = np.random.default_rng(5)
    wrong = 0
    for _ in range(100):
        on, right, answers = clustered(random, 4_000, more=2)
        values = linearised(right, answers, ratio=0.4, mean_denominator=4.0)
        wrong += ever_excludes_zero(on, values)
    assert wrong / 100 > 0.3


ON = np.array([True, True, False, False])


@pytest.mark.parametrize(
    ("right", "answers", "said"),
    [
        (np.ones(4), np.zeros(4), "denominators of an arm are zero"),
        (np.ones(4), np.array([0.0, 0.0, 1.0, 2.0]), "denominators of an arm are zero"),
        (np.ones(4), np.array([1.0, -1.0, 1.0, 2.0]), "0 or more"),
        (np.array([1.0, np.nan, 1.0, 1.0]), np.ones(4), r"numerator\[1\]=nan"),
        (np.ones(4), np.array([1.0, np.inf, 1.0, 1.0]), r"denominator\[1\]=inf"),
        (np.ones(3), np.ones(4), "shape"),
    ],
)
def test_bad_sums_are_refused(right, answers, said):
    with pytest.raises(ExperimentError, match=said):
        ratio_arms(ON, right, answers)


def test_bad_plans_and_units_are_refused():
    ones = np.ones(4)
    with pytest.raises(ExperimentError, match="above zero"):
        linearised(ones, ones, ratio=0.5, mean_denominator=0.0)
    with pytest.raises(ExperimentError, match="ratio=nan"):
        linearised(ones, ones, ratio=float("nan"), mean_denominator=1.0)
    with pytest.raises(ExperimentError, match="not finite"):
        linearised(ones * np.nan, ones, ratio=0.5, mean_denominator=1.0)
    sequence = partial(ratio_sequence, alpha=0.05, tuned_for_units=10)
    with pytest.raises(ExperimentError, match="burn_in=1"):
        sequence(ON, ones, ones, burn_in=1)
    with pytest.raises(ExperimentError, match="shape"):
        sequence(ON[:3], ones, ones, burn_in=2)
    with pytest.raises(ExperimentError, match="not a level"):
        ratio_sequence(ON, ones, ones, alpha=2.0, tuned_for_units=10, burn_in=2)
    with pytest.raises(ExperimentError, match="0 or more"):
        unit_sums(np.array([0, -1]), np.ones(2))
    with pytest.raises(ExperimentError, match="float64"):
        unit_sums(np.array([0.0, 1.0]), np.ones(2))
    with pytest.raises(ExperimentError, match="one value per event"):
        unit_sums(np.array([0, 1]), np.ones(3))


def test_no_answer_right_is_refused_with_a_mend():
    with pytest.raises(ExperimentError, match="exact method"):
        difference(ratio_arms(ON, np.zeros(4), np.ones(4)), alpha=0.05)


def test_a_sequence_of_few_or_no_units_says_nothing():
    nothing = ratio_sequence(
        ON[:0], np.zeros(0), np.zeros(0), alpha=0.05, tuned_for_units=10, burn_in=2
    )
    assert nothing.n.size == nothing.low.size == 0
    early = ratio_sequence(ON, np.ones(4), np.zeros(4), alpha=0.05, tuned_for_units=10, burn_in=2)
    assert (early.low == -np.inf).all()
    assert np.isnan(early.estimate).all()


def test_arms_that_were_never_wrong_are_not_taken_for_faultless():
    on, _, answers = clustered(np.random.default_rng(9), 2_000)
    found = ratio_sequence(
        on, 0.1 * answers, answers, alpha=0.05, tuned_for_units=1_000, burn_in=100
    )
    assert (found.low == -np.inf).all()
    assert (found.high == np.inf).all()


def test_an_arm_of_new_units_alone_is_refused_with_its_own_mend():
    with pytest.raises(ExperimentError, match="use ratio_arms"):
        adjusted_ratio_arms(
            ON,
            np.ones(4),
            np.ones(4),
            covariate_numerator=np.zeros(4),
            covariate_denominator=np.array([0.0, 0.0, 1.0, 1.0]),
        )


def test_capped_sums_keep_each_units_ratio_and_hold_down_its_weight():
    right, answers = np.array([0.0, 3.0, 30.0, 900.0]), np.array([0.0, 4.0, 40.0, 3_000.0])
    capped = capped_sums(right, answers, most=40.0)
    np.testing.assert_allclose(capped[1], [0.0, 4.0, 40.0, 40.0])
    np.testing.assert_allclose(capped[0], [0.0, 3.0, 30.0, 12.0])
    for same in (capped_sums(*capped, most=40.0), capped_sums(*capped, most=np.inf)):
        np.testing.assert_array_equal(same, capped)


def test_at_a_cap_of_one_answer_the_ratio_is_the_mean_over_units():
    on, right, answers = clustered(np.random.default_rng(3), 400)
    once = ratio_arms(on, *capped_sums(right, answers, most=1.0))
    found = difference(once, alpha=0.05)
    means = difference(mean_arms(on, right / answers), alpha=0.05)
    np.testing.assert_allclose(astuple(found), astuple(means), rtol=1e-12)


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan")])
def test_a_cap_that_leaves_nothing_is_refused(most):
    with pytest.raises(ExperimentError, match="most="):
        capped_sums(np.ones(2), np.ones(2), most=most)
    with pytest.raises(ExperimentError, match="one of each per unit"):
        capped_sums(np.ones(2), np.ones(3), most=1.0)
