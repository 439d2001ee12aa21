import numpy as np
import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.analysis import report_of
from serving.experiments.database import open_database
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.thinned import thinned_sequence
from serving.experiments.lifecycle import Event
from serving.experiments.metric_rows import PhaseReader, at_one_moment
from serving.experiments.report import ExperimentReport
from serving.experiments.store import Feedback

EVEN = {"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}, "min_units": 100}
AB = {"phases": [EVEN]}
THREE = {
    "arms": [
        {"name": "float", "model": "models:/m/1"},
        {"name": "int8", "model": "models:/m/2"},
        {"name": "distilled", "model": "models:/m/3"},
    ],
    "phases": [
        {
            "kind": "ab",
            "allocation": {"float": 0.4, "int8": 0.3, "distilled": 0.3},
            "min_units": 100,
        }
    ],
}
DAY_US = 86_400_000_000


def report(it, **given):
    found = report_of(it.url, it.name, clock=lambda: it.now_us, **given)
    assert ExperimentReport.model_validate_json(found.model_dump_json()) == found
    return found


def test_a_better_arm_is_promoted_with_every_figure(trial):
    it = trial(AB)
    it.open()
    it.serve(1_500, {"float": 0.65, "int8": 0.9})
    found = report(it)
    assert found.decision == "promote"
    assert (found.arm, found.advance, found.state) == ("int8", None, "running")
    assert "Promote it" in found.reason
    assert "승격하세요" in found.reason_ko
    control, arm = found.arms
    assert control.units + arm.units == 1_500 == sum(found.outcomes.values())
    row = found.primary[0]
    assert row.difference == pytest.approx(row.value - row.control_value, abs=0.01)
    assert row.relative == pytest.approx(row.difference / row.control_value)
    assert (found.low, found.high) == (row.low, row.high)
    assert found.timeline[0].points[-1].low == row.low
    assert found.srm_p is not None
    assert {each.metric for each in found.metrics} == {
        "sentiment_accuracy",
        "error_rate",
        "latency_ms",
    }
    assert [each.reading for each in found.guardrails] == ["undecided"]  # of a margin of 1 %p
    assert "none is ruled out yet: error rate" in found.reason


def test_the_primary_metric_is_the_sequence_of_the_units_in_their_order(trial):
    it = trial(AB)
    it.open()
    it.serve(900, {"float": 0.7, "int8": 0.7}, asks=2)
    engine = open_database(it.url)
    with at_one_moment(engine) as connection:
        reader = PhaseReader(
            connection,
            experiment_id=it.name,
            deployment_id=it.deployment_id,
            arms=["float", "int8"],
            window_days=7.0,
        )
        arm, values = reader.units().arm, reader.metric("sentiment_accuracy").values
    engine.dispose()
    whole = thinned_sequence(
        arm == 1,
        values,
        np.asarray([900]),
        challenger_share=0.5,
        alpha=0.05,
        tuned_for_units=2_000,
        burn_in=100,
        min_effective=EFFECTIVE,
    )
    row = report(it).primary[0]
    assert (row.low, row.high) == pytest.approx((whole.low[0], whole.high[0]), abs=1e-12)
    assert row.reading == "undecided"


def test_a_worse_arm_is_rolled_back(trial):
    it = trial(AB)
    it.open()
    it.serve(1_500, {"float": 0.9, "int8": 0.65})
    found = report(it)
    assert (found.decision, found.arm) == ("roll_back", "int8")
    assert "되돌리세요" in found.reason_ko


def test_the_best_of_several_is_promoted_and_one_worse_arm_alone_ends_nothing(trial):
    it = trial(THREE)
    it.open()
    it.serve(2_500, {"float": 0.6, "int8": 0.8, "distilled": 0.95})
    assert (report(it).decision, report(it).arm) == ("promote", "distilled")


def test_one_worse_arm_of_several_is_named_while_the_others_go_on(trial):
    it = trial(THREE)
    it.open()
    it.serve(2_500, {"float": 0.75, "int8": 0.75, "distilled": 0.4})
    found = report(it)
    assert found.decision == "continue"
    assert "distilled; give it the smallest share" in found.reason
    assert {row.arm: row.level for row in found.primary} == {"int8": 0.975, "distilled": 0.975}


def test_after_the_agreed_days_too_little_is_invalid(trial):
    it = trial(AB)
    it.open()
    it.serve(600, {"float": 0.7, "int8": 0.7})
    assert report(it).decision == "continue"
    it.now_us += 29 * DAY_US
    found = report(it)
    assert found.decision == "invalid"
    assert "within the agreed 28 days" in found.reason
    assert "합의한 28일 안에" in found.reason_ko


def test_a_phase_that_ended_is_as_long_as_it_was(trial):
    it = trial(AB)
    it.open()
    it.serve(300, {"float": 0.7, "int8": 0.7})
    it.catalogue.record(it.name, Event(action="abandon", by="a test", reason="enough"))
    before = report(it).phase.days
    it.now_us += 100 * DAY_US
    found = report(it)
    assert found.phase.days == pytest.approx(before)
    assert found.state == "abandoned"


def test_zero_data_is_invalid_and_says_what_to_check(trial):
    it = trial(AB)
    it.open()
    found = report(it)
    assert found.decision == "invalid"
    assert "Nobody was answered" in found.reason
    assert found.low is None
    assert [row.units for row in found.primary] == [(0, 0)]


def test_an_arm_without_units_is_too_early_and_later_a_broken_ratio(trial):
    it = trial(AB)
    it.open()
    it.write([it.exposure("float", unit) for unit in range(5)])
    found = report(it)
    assert found.decision == "continue"
    assert "int8 has 0 units" in found.reason
    it.write([it.exposure("float", unit) for unit in range(5, 300)])
    found = report(it)
    assert found.decision == "invalid"
    assert "not dealt as agreed" in found.reason
    assert found.sample_ratio[0].reading == "alarm"


def test_mixed_models_strange_arms_and_crossed_units_are_invalid(trial):
    it = trial(AB)
    it.open()
    it.serve(200, {"float": 0.7, "int8": 0.7})
    it.write([it.exposure("int8", 7)])
    it.write([it.exposure("float", 7)])
    assert "answered by several arms" in report(it).reason
    it.write([it.exposure("turbo", 9_000)])
    assert "turbo, which this deployment has not" in report(it).reason
    it.write([it.exposure("int8", 9_001, model_version="m/8")])
    found = report(it)
    assert found.decision == "invalid"
    assert "should be m/2, but m/8 answered too" in found.reason


def test_outcomes_that_go_missing_more_in_one_arm_are_invalid(trial):
    it = trial(AB)
    it.open()
    it.serve(1_500, {"float": 0.8, "int8": 0.8}, heard={"int8": 0.7})
    found = report(it)
    assert found.decision == "invalid"
    assert "Outcomes of int8 go missing" in found.reason
    assert found.outcomes["int8"] < 0.8 * found.exposures["int8"]


def test_an_arm_that_gets_no_outcome_at_all_is_a_gap_too(trial):
    it = trial(AB)
    it.open()
    it.serve(400, {"float": 0.8, "int8": 0.8}, heard={"int8": 0.0})
    assert "Outcomes of int8 go missing" in report(it).reason


def test_outcomes_may_be_late_until_their_window_has_passed(trial):
    it = trial(AB)
    it.open()
    it.serve(800, {"float": 0.8, "int8": 0.8}, heard={"float": 0.5, "int8": 0.5})
    assert report(it).decision == "continue"
    it.now_us += 8 * DAY_US
    found = report(it)
    assert found.decision == "invalid"
    assert "got no outcome in time" in found.reason


def test_an_arm_that_always_fails_is_rolled_back_after_a_few_units(trial):
    it = trial({"phases": [EVEN | {"min_units": 30}]})
    it.open()
    failed = {"status": "failed", "prediction": b'{"error":"engine_failed"}'}
    for unit in range(80):
        arm = ("float", "int8")[unit % 2]
        it.write([it.exposure(arm, unit, **(failed if arm == "int8" else {}))])
    found = report(it)
    assert (found.decision, found.arm) == ("roll_back", "int8")
    assert "error rate" in found.reason
    assert [row.method for row in found.guardrails] == ["coins"]
    assert found.arms[1].failures == 40


def test_a_slower_arm_breaches_a_quantile_guardrail(trial):
    slow = {"name": "latency_ms", "direction": "decrease", "margin": 5.0, "quantile": 0.5}
    it = trial({**AB, "metrics.guardrails": [slow], "metrics.signals": []})
    it.open()
    random = np.random.default_rng(4)
    shown = []
    for unit in range(1_000):
        arm = ("float", "int8")[unit % 2]
        extra = 30.0 * (arm == "int8")
        shown.append(it.exposure(arm, unit, latency_ms=20.0 + random.exponential(10.0) + extra))
    it.write(shown)
    found = report(it)
    assert (found.decision, found.arm) == ("roll_back", "int8")
    assert "p50 latency" in found.reason
    assert found.guardrails[0].difference == pytest.approx(30.0, abs=3.0)


def test_what_was_known_of_units_before_cuts_the_variance(trial):
    it = trial({"phases": [{"kind": "shadow", "mirrored": 0.1}, EVEN]})
    it.open()
    random = np.random.default_rng(8)
    good = random.random(1_500) < 0.5

    def heard(arm, unit, chance):
        shown, said = [], []
        for _ in range(4):
            one = it.exposure(arm, unit)
            true = "positive" if random.random() < chance else "negative"
            shown.append(one)
            said.append(Feedback(one.request_id, 0, one.created_at_us + 1, sentiment=true))
        return shown, said

    for phase in (0, 1):
        if phase:
            it.open("advance")
        everything = [
            heard(
                "float" if not phase else ("float", "int8")[unit % 2],
                unit,
                0.95 if good[unit] else 0.35,
            )
            for unit in range(1_500)
        ]
        shown, said = (
            [one for pair in side for one in pair] for side in zip(*everything, strict=True)
        )
        it.write(shown, said)
    found = report(it).primary[0]
    assert found.variance_cut > 0.3
    assert abs(found.difference) < 0.05


def test_a_canary_says_whether_to_go_on(trial):
    canary = {"kind": "canary", "allocation": {"float": 0.8, "int8": 0.2}, "min_units": 100}
    it = trial({"phases": [canary, EVEN]})
    it.open()
    it.serve(200, {"float": 0.8, "int8": 0.8})
    early = report(it)
    assert (early.decision, early.advance) == ("continue", False)
    it.serve(900, {"float": 0.8, "int8": 0.8}, first=200, seed=5)
    found = report(it)
    assert (found.decision, found.advance) == ("continue", True)
    assert "units enough" in found.reason


def test_a_shadow_compares_the_same_texts_and_shows_where_they_differ(trial):
    shadow = {"kind": "shadow", "mirrored": 0.5, "min_units": 100}
    it = trial({"phases": [shadow, EVEN], "metrics.primary.margin": 0.3})
    it.open()
    shown, said = [], []
    for unit in range(400):
        one = it.exposure("float", unit)
        label = "negative" if unit % 10 == 0 else "positive"
        copy = it.exposure(
            "int8",
            unit,
            request_id=one.request_id,
            text_sha256=one.text_sha256,
            why="mirrored",
            prediction=(
                b'{"sentiment":{"label":"%s","probabilities":{"negative":0.6,"positive":0.4}}}'
                % label.encode()
            ),
        )
        shown += [one, copy]
        said.append(Feedback(one.request_id, 0, one.created_at_us + 1, sentiment="positive"))
    it.write(shown, said)
    found = report(it)
    assert (found.decision, found.advance) == ("continue", True)
    assert found.sample_ratio == ()
    assert [(arm.units, arm.asks) for arm in found.arms] == [(400, 400), (400, 400)]
    row = found.primary[0]
    assert (row.kind, row.control_value, row.value) == ("paired", 1.0, 0.9)
    assert row.low < -0.1 < row.high
    differing = found.disagreements[0]
    assert (differing.pairs, differing.agreed) == (400, 360)
    assert differing.confusion == {"positive": {"negative": 40, "positive": 360}}
    assert len(differing.examples) == 20
    first = differing.examples[0]
    assert (first.control_label, first.other_label) == ("positive", "negative")
    assert first.other == {"negative": 0.6, "positive": 0.4}


def test_a_phase_may_be_asked_for_by_its_number(trial):
    it = trial({"phases": [{"kind": "shadow", "mirrored": 0.5}, EVEN]})
    it.open()
    it.open("advance")
    assert report(it, phase=1).phase.kind == "shadow"
    assert report(it).phase.number == 2
    with pytest.raises(ExperimentError, match=r"phase=3; .* has had 2 phases"):
        report(it, phase=3)


def test_what_never_began_or_is_unknown_is_told(trial):
    it = trial(AB)
    with pytest.raises(ExperimentError, match="'draft' and never began"):
        report(it)
    with pytest.raises(ExperimentError, match="no experiment 'other'"):
        report_of(it.url, "other")
    it.catalogue.record(it.name, Event(action="start", by="a test", reason="without a deployment"))
    with pytest.raises(ExperimentError, match="no deployment in this store"):
        report(it)


def test_a_shadow_that_is_worse_is_rolled_back(trial):
    it = trial({"phases": [{"kind": "shadow", "mirrored": 0.5, "min_units": 100}, EVEN]})
    it.open()
    shown, said = [], []
    for unit in range(600):
        one = it.exposure("float", unit)
        given = {"request_id": one.request_id, "why": "mirrored"}
        if unit % 4 == 0:
            given["prediction"] = b'{"sentiment":{"label":"negative"}}'
        shown += [one, it.exposure("int8", unit, **given)]
        said.append(Feedback(one.request_id, 0, one.created_at_us + 1, sentiment="positive"))
    it.write(shown, said)
    found = report(it)
    assert (found.decision, found.arm, found.advance) == ("roll_back", "int8", False)
    assert found.disagreements[0].examples[0].other == {}


def test_a_deployment_of_other_arms_is_told(trial):
    it = trial(AB)
    it.open()
    engine = sa.create_engine(it.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE deployments SET content = '{\"arms\": []}'")
    engine.dispose()
    with pytest.raises(ExperimentError, match=r"has the arms \[\]"):
        report(it)


def test_a_reward_that_is_no_number_is_told(trial):
    it = trial(AB | {"metrics.primary.name": "reward", "metrics.primary.margin": 0.0})
    it.open()
    it.serve(200, {"float": 0.7, "int8": 0.7})
    one = it.exposure("float", 5_000)
    it.write([one], [Feedback(one.request_id, 0, one.created_at_us + 1, reward=float("inf"))])
    with pytest.raises(ExperimentError, match="not finite"):
        report(it)


def test_outcomes_without_an_exposure_count_for_nothing(trial):
    it = trial(AB)
    it.open()
    it.serve(200, {"float": 0.7, "int8": 0.7})
    before = report(it)
    it.write([], [Feedback("nobody", 0, it.now_us, sentiment="positive")])
    assert report(it).outcomes == before.outcomes


def test_only_units_that_were_dealt_by_chance_are_compared(trial):
    it = trial(AB)
    it.open()
    it.serve(200, {"float": 0.7, "int8": 0.7})
    before = report(it)
    it.write(
        [
            it.exposure("int8", 9_000 + number, why=why)
            for number, why in enumerate(["override", "holdout", "forced", "outside_coverage"])
        ]
    )
    assert report(it).exposures == before.exposures
