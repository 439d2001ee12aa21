"""Readings of guardrails from rows in the store, and what follows from them."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.guarding import act_on
from serving.experiments.guardrails import GuardrailWatch, look_at_phase
from serving.experiments.routes import Routes
from serving.experiments.specification import specification_of
from serving.experiments.tables import exposures

Open = Callable[..., Any]
ERRORS = {"name": "error_rate", "direction": "decrease", "margin": 0.01}
SLOWER = {"name": "latency_ms", "direction": "decrease", "margin": 5.0}
COST = {"name": "cost", "direction": "decrease", "margin": 0.001}
LATENCY_P95 = {"name": "latency_ms", "quantile": 0.95, "direction": "decrease", "margin": 20.0}


def of(**odd: Any) -> Callable[[str], dict[str, Any]]:
    """What is odd of the challenger."""
    return lambda arm: odd if arm == "int8" else {}


def failing(arm: str) -> dict[str, Any]:
    error = {"status": "failed", "prediction": b'{"error": "engine_failed"}'}
    return error if arm == "int8" else {}


def reading(look: Any, metric: str, arm: str = "int8") -> Any:
    (found,) = [each for each in look.readings if (each.metric, each.arm) == (metric, arm)]
    return found


def test_an_arm_that_always_fails_is_seen_as_soon_as_it_has_thirty_units(open_phase: Open) -> None:
    phase = open_phase("ab")
    watch = phase.watch()
    phase.answer(50, failing)
    before = watch.look()
    assert min(before.units.values()) < 30
    assert not before.breached("guardrail")

    phase.answer(22, failing)
    look = watch.look()

    assert 30 <= min(look.units.values()) <= 40
    (found,) = look.breached("guardrail")
    assert (found.metric, found.arm, found.value, found.control_value) == (
        "error_rate",
        "int8",
        1.0,
        0.0,
    )
    assert found.low is not None
    assert found.low > 0.5
    assert "worse by at least" in found.sentence
    assert "'error_rate' of 'int8' is 1 over" in found.sentence


def test_arms_that_are_alike_show_no_loss(open_phase: Open) -> None:
    phase = open_phase("ab", {"metrics.guardrails": [ERRORS, SLOWER, COST]})
    watch = phase.watch()
    for _ in range(5):
        phase.answer(300, lambda _: {"cost": float(phase.random.lognormal(-6.0, 0.2))})
        look = watch.look()
        assert not any(each.breached for each in look.readings)
        assert not look.sample_ratio.broken
    slower = reading(look, "latency_ms")
    assert slower.low < 0.0 < slower.high
    assert slower.sentence.endswith("no loss beyond the accepted 5 is shown.")


@pytest.mark.parametrize(
    ("goal", "odd", "metric"),
    [
        (SLOWER, {"latency_ms": lambda random: random.normal(60.0, 5.0)}, "latency_ms"),
        (LATENCY_P95, {"latency_ms": 190.0}, "latency_ms p95"),
        (COST, {"cost": 0.004}, "cost"),
        (
            {"name": "degraded_rate", "direction": "decrease", "margin": 0.02},
            {"status": "degraded"},
            "degraded_rate",
        ),
    ],
)
def test_each_metric_of_answers_is_guarded(
    open_phase: Open, goal: dict[str, Any], odd: dict[str, Any], metric: str
) -> None:
    phase = open_phase("ab", {"metrics.guardrails": [goal], "metrics.signals": []})
    watch = phase.watch()

    def changed(arm: str) -> dict[str, Any]:
        drawn = {
            name: value(phase.random) if callable(value) else value for name, value in odd.items()
        }
        return {"cost": 0.002} | of(**drawn)(arm)

    phase.answer(900, changed)
    (found,) = watch.look().breached("guardrail")
    assert (found.metric, found.arm) == (metric, "int8")
    assert found.low > goal["margin"]


def test_a_constant_price_is_compared_though_it_never_varies(open_phase: Open) -> None:
    phase = open_phase("ab", {"metrics.guardrails": [COST], "metrics.signals": []})
    phase.answer(400, lambda arm: {"cost": 0.002 if arm == "float" else 0.0025})
    found = reading(phase.watch().look(), "cost")
    assert (found.breached, found.low) == (False, pytest.approx(0.0005))


def test_feedback_is_guarded_and_of_several_outcomes_the_latest_counts(open_phase: Open) -> None:
    orders = {"name": "orders", "direction": "increase", "margin": 0.2}
    phase = open_phase("ab", {"metrics.guardrails": [orders], "metrics.signals": []})
    phase.answer(500)
    watch, rows = phase.watch(), phase.store._engine
    with rows.connect() as connection:
        arms = dict(connection.execute(sa.select(exposures.c.request_id, exposures.c.arm)).all())
    for request, arm in arms.items():
        number = int(request.partition("-")[2])
        phase.tell(number, 3.0 + number % 3, metric="orders", event_id=f"first-{number}")
        if arm == "int8":  # they were cancelled, say
            phase.tell(number, 1.0 + number % 3, metric="orders", event_id=f"then-{number}")

    look = watch.look()

    (found,) = look.breached("guardrail")
    assert found.metric == "orders"
    assert found.value == pytest.approx(2.0, abs=0.2)
    assert found.control_value == pytest.approx(4.0, abs=0.2)
    assert found.high < -0.2


def test_on_both_databases(open_phase_at: Open, store_url: str) -> None:
    goal = {"name": "reward", "direction": "increase", "margin": 0.2}
    phase = open_phase_at(store_url, "ab", {"metrics.guardrails": [ERRORS, goal]})
    watch = phase.watch(store_url)
    phase.answer(60)
    for request in range(1, 61):
        phase.tell(request, 1.0)
    fed_back = reading(watch.look(), "reward")
    assert fed_back.units + fed_back.control_units == 60
    phase.answer(150, failing)
    phase.now_us += 90_000_000
    phase.answer(10)
    look = watch.look()
    assert sum(look.units.values()) == 220
    after = act_on(phase.catalogue, look, phase.entry)
    assert after.lifecycle.state == "rolled_back"
    one = look_at_phase(store_url, phase.deployment, phase.specification)
    assert one.units == look.units


def test_an_outcome_after_the_window_does_not_count(open_phase: Open) -> None:
    goal = {"name": "reward", "direction": "increase", "margin": 0.2}
    phase = open_phase("ab", {"metrics.guardrails": [goal], "stopping": {"attribution_days": 1.0}})
    phase.answer(2)
    phase.tell(1, 1.0)
    phase.now_us += 2 * 86_400_000_000
    phase.tell(2, 1.0)
    found = reading(phase.watch().look(), "reward")
    assert found.units + found.control_units == 1


def test_only_what_was_dealt_by_chance_counts(open_phase: Open) -> None:
    phase = open_phase("ab")
    for why in ("override", "holdout", "outside_layer", "outside_coverage", "forced", "mirrored"):
        phase.answer(40, lambda arm, why=why: {"why": why} | failing(arm))
    look = phase.watch().look()
    assert look.units == {"float": 0, "int8": 0}
    assert reading(look, "error_rate").sentence.endswith("an arm has no value yet.")


def test_a_shadow_is_guarded_by_what_it_would_have_answered(open_phase: Open) -> None:
    phase = open_phase("shadow")
    rows = []
    for unit in range(60):
        rows += [
            phase.row(unit, "float"),
            replace(phase.row(unit, "int8", why="mirrored"), status="failed"),
        ]
    phase.store.write(rows)
    look = phase.watch().look()
    assert look.sample_ratio is None
    assert [each.metric for each in look.breached("guardrail")] == ["error_rate"]


def test_units_that_are_not_dealt_as_planned_are_told(open_phase: Open) -> None:
    phase = open_phase("ab")
    phase.answer(1_500)
    watch = phase.watch()
    phase.store.write([phase.row(10_000 + number, "int8") for number in range(400)])
    assert not watch.look().sample_ratio.broken  # the others may be on their way
    phase.now_us += 121_000_000
    look = watch.look()
    assert look.sample_ratio.broken
    assert "int8" in look.sample_ratio.sentence


def test_an_arm_that_takes_its_time_is_not_taken_for_one_that_loses_units(open_phase: Open) -> None:
    phase = open_phase("ab")
    watch, began_us = phase.watch(), phase.now_us
    asked = [(phase.random.choice(["float", "int8"]), number) for number in range(4_000)]
    ends = []
    for arm, number in asked:  # 100 units a second, which the second arm answers a minute later
        latency_ms = 60_000.0 if arm == "int8" else 20.0
        at_us = began_us + number * 10_000 + round(latency_ms * 1_000)
        row = phase.row(number, arm, latency_ms=latency_ms)
        ends.append(replace(row, created_at_us=at_us))
    ends.sort(key=lambda row: row.created_at_us)
    for second in range(0, 240, 5):
        phase.now_us = began_us + second * 1_000_000
        here = bisect_right(ends, phase.now_us, key=lambda row: row.created_at_us)
        phase.store.write(ends[:here])
        del ends[:here]
        assert not watch.look().sample_ratio.broken
    assert sum(watch._feed.settled) >= 3_000


def test_every_challenger_of_several_is_read_at_its_part_of_the_level(open_phase: Open) -> None:
    arms = [
        {"name": name, "model": f"models:/matjip-sentiment/{place}"}
        for place, name in enumerate(("float", "int8", "int4"), start=1)
    ]
    thirds = {"float": 0.5, "int8": 0.25, "int4": 0.25}
    phase = open_phase("ab", {"arms": arms, "phases": [{"kind": "ab", "allocation": thirds}]})
    phase.answer(400, failing)
    look = phase.watch().look()
    assert [(each.metric, each.arm) for each in look.breached("guardrail")] == [
        ("error_rate", "int8")
    ]
    assert reading(look, "error_rate", "int4").value == 0.0


def test_one_look_at_all_of_it_is_what_many_looks_came_to(open_phase: Open) -> None:
    phase = open_phase("ab", {"metrics.guardrails": [ERRORS, SLOWER]})
    watch = phase.watch()
    for _ in range(6):
        phase.answer(70)
        phase.now_us += 20_000_000
        many = watch.look()
    one = look_at_phase(phase.store.name, phase.deployment, phase.specification)
    assert one.units == many.units
    for each, other in zip(one.readings, many.readings, strict=True):
        assert each.estimate == pytest.approx(other.estimate, rel=1e-12)
        assert (each.low, each.high) == pytest.approx((other.low, other.high), rel=1e-9)


def test_false_alarms_are_as_rare_as_agreed_under_a_look_after_every_few_units(
    open_phase: Open,
) -> None:
    """A/A: the guardrails' level is 0.2 here, so that a few runs tell."""
    changes = {"metrics.guardrails": [ERRORS | {"margin": 0.0}], "metrics.signals": []}
    phase = open_phase("ab", changes | {"stopping": {"alpha": 0.2}})
    alarms, runs = 0, 60
    for run in range(runs):
        told = phase.watch()._feed
        told.read = lambda **_: False  # rows come by hand: a database would only take time
        watch = phase.watch()
        watch._feed = told
        random = np.random.default_rng(run)
        for _ in range(30):
            slots = np.asarray(
                [
                    told.units.number(arm, f"{unit:064x}")
                    for arm, unit in zip(
                        random.choice(["float", "int8"], 25),
                        random.integers(0, 2**60, 25).tolist(),
                        strict=True,
                    )
                ]
            )
            failed = (random.random(25) < 0.08).astype(float)
            told.tallies["error_rate"].add(slots, failed, np.ones(25))
            if watch.look().breached("guardrail"):
                alarms += 1
                break
    # 12 are expected at the level itself; more than 20 come with probability 0.4%.
    assert alarms <= 20


def test_a_breach_rolls_back_and_turns_the_route_at_once(open_phase: Open) -> None:
    phase = open_phase("canary")
    phase.answer(900, failing)
    entry = phase.entry
    after = act_on(phase.catalogue, phase.watch().look(), entry)

    assert after.lifecycle.state == "rolled_back"
    assert (after.history[-1].event.by, after.history[-1].event.action) == (
        "guardrails",
        "roll_back",
    )
    assert "'error_rate' of 'int8'" in after.history[-1].event.reason
    routes = Routes(phase.store.name)
    assert routes.now(phase.deployment.deployment_id).arm == "float"
    routes.close()
    assert act_on(phase.catalogue, phase.watch().look(), after) is None


def test_of_two_that_see_a_breach_at_once_one_acts(open_phase: Open) -> None:
    phase = open_phase("ab")
    phase.answer(100, failing)
    entry, look = phase.entry, phase.watch().look()
    first, second = (act_on(phase.catalogue, look, entry) for _ in range(2))
    assert first.lifecycle.state == "rolled_back"
    assert second is None
    assert len(phase.entry.history) == len(entry.history) + 1


def test_a_signal_pauses_once_and_a_person_resumes(open_phase: Open) -> None:
    phase = open_phase("ab")
    watch = phase.watch()
    phase.answer(1_200, of(latency_ms=400.0))
    paused = act_on(phase.catalogue, watch.look(), phase.entry)
    assert paused.lifecycle.state == "paused"
    assert "'latency_ms p95' of 'int8'" in paused.history[-1].event.reason
    assert act_on(phase.catalogue, watch.look(), paused) is None

    resumed = phase.act("resume")
    phase.answer(100, of(latency_ms=400.0))
    assert act_on(phase.catalogue, watch.look(), resumed) is None  # it was looked at

    phase.answer(200, failing)
    assert act_on(phase.catalogue, watch.look(), resumed).lifecycle.state == "rolled_back"


def test_a_broken_sample_ratio_pauses_and_what_was_paused_may_still_be_rolled_back(
    open_phase: Open,
) -> None:
    phase = open_phase("ab")
    watch = phase.watch()
    phase.store.write([phase.row(10_000 + number, "float") for number in range(400)])
    phase.now_us += 121_000_000
    paused = act_on(phase.catalogue, watch.look(), phase.entry)
    assert paused.history[-1].event.action == "pause"
    assert "sample ratio is broken" in paused.history[-1].event.reason

    phase.answer(100, failing)
    after = act_on(phase.catalogue, watch.look(), paused)
    assert after.lifecycle.state == "rolled_back"


def test_another_phase_than_the_open_one_is_left_alone(open_phase: Open) -> None:
    phase = open_phase("canary")
    phase.answer(900, failing)
    look = phase.watch().look()
    phase.act("advance")
    assert act_on(phase.catalogue, look, phase.entry) is None


def test_a_deployment_of_no_phase_has_no_guardrails(open_phase: Open, agreed: Any) -> None:
    phase = open_phase("ab")
    other = specification_of(agreed({"name": "another"}), where="experiment")
    engine = phase.store._engine
    with pytest.raises(ExperimentError, match="serves 'sentiment-int8', so it has no guardrails"):
        GuardrailWatch(engine, phase.deployment, other)
    bare = phase.deployment.model_copy(update={"phase": None})
    with pytest.raises(ExperimentError, match="serves None"):
        GuardrailWatch(engine, bare, phase.specification)
