"""How large an experiment has to be, against figures that were worked out apart."""

import pytest
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.specification import specification_of
from serving.registry.experiment_plan import plan_for


@pytest.fixture
def planned(experiment_values):
    """Plans for a goal and an A/B phase, changed."""

    def plan(goal, phase=None, numbers=(0.8, 0.02, 1_000.0), **changes):
        phase = {"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}} | (phase or {})
        goals = {"primary": {"name": "sentiment_accuracy", "direction": "increase"} | goal}
        values = experiment_values({"metrics": goals, "phases": [phase]} | changes)
        baseline, lift, units_per_day = numbers
        return plan_for(
            specification_of(values, where="test"),
            baseline=baseline,
            lift=lift,
            units_per_day=units_per_day,
        )

    return plan


def textbook(alpha, power, control, challenger, effect, *, sides=2):
    z = stats.norm.isf(alpha / sides) + stats.norm.isf(1 - power)
    return z**2 * (control * (1 - control) + challenger * (1 - challenger)) / effect**2


def test_a_gain_is_looked_for_on_both_sides(planned):
    plan = planned({})
    assert plan.control == plan.challenger
    assert plan.control == pytest.approx(textbook(0.05, 0.8, 0.8, 0.82, 0.02), rel=1e-3)
    assert plan.total == pytest.approx(2 * plan.control, abs=2)
    assert plan.days == pytest.approx(plan.total / 1_000, rel=1e-3)
    assert plan.fits


def test_with_a_margin_no_gain_is_needed(planned):
    plan = planned({"margin": 0.02}, numbers=(0.8, 0.0, 1_000.0))
    assert plan.control == pytest.approx(textbook(0.05, 0.8, 0.8, 0.8, 0.02, sides=1), rel=1e-3)


def test_of_a_rate_that_shall_fall_a_lift_is_a_fall(planned):
    goal = {"name": "error_rate", "direction": "decrease"}
    plan = planned(goal, numbers=(0.1, 0.02, 1_000.0))
    assert plan.control == pytest.approx(textbook(0.05, 0.8, 0.1, 0.08, 0.02), rel=1e-3)
    plan = planned(goal | {"margin": 0.02}, numbers=(0.1, 0.0, 1_000.0))
    assert plan.control == pytest.approx(textbook(0.05, 0.8, 0.1, 0.1, 0.02, sides=1), rel=1e-3)


def test_coverage_and_holdout_take_longer(planned):
    whole, part = planned({}), planned({}, {"coverage": 0.25}, holdout=0.2)
    assert part.total == whole.total
    assert part.days == pytest.approx(whole.days / (0.25 * 0.8))
    assert not part.fits


def test_several_challengers_share_the_level(planned):
    arms = [{"name": name, "model": f"models:/m/{n}"} for n, name in enumerate("abc", 1)]
    shares = {"allocation": {"a": 0.5, "b": 0.25, "c": 0.25}}
    plan = planned({}, shares, arms=arms)
    alone = planned({}, {"allocation": {"now": 0.5, "lighter": 0.5}})
    assert plan.total > alone.total
    assert plan.control == pytest.approx(2 * plan.challenger, abs=1)


@pytest.mark.parametrize(
    "numbers", [(0.0, 0.1, 10.0), (0.8, 0.3, 10.0), (0.8, 0.0, 10.0), (0.8, 0.1, 0.0)]
)
def test_numbers_that_plan_nothing_are_refused(planned, numbers):
    with pytest.raises(ExperimentError):
        planned({}, numbers=numbers)
