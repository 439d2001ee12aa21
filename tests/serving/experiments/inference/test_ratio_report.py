import numpy as np
import pytest
from pydantic import ValidationError

from data.errors import ExperimentError
from serving.experiments.inference.ratio_report import PhaseCounts, RatioRule, phase_report

SHARES = {"champion": 0.5, "challenger": 0.5}
RULE = RatioRule()


def counted(champion, challenger, **segments):
    return PhaseCounts(
        name="A/B",
        shares=SHARES,
        counts={"champion": champion, "challenger": challenger},
        segments={
            name: {"champion": counts[0], "challenger": counts[1]}
            for name, counts in segments.items()
        },
    )


def test_reads_ok_alarm_and_too_few():
    found = phase_report(
        counted(50_150, 49_850, web=(10_000, 9_950), app=(9_000, 11_000), watch=(3, 4)), RULE
    )
    assert found.phase.reading == "ok"
    assert found.phase.sentence == (
        "A/B: the shares of 100,000 units are as intended, as far as chance goes."
    )
    assert {name: each.reading for name, each in found.segments.items()} == {
        "web": "ok",
        "app": "alarm",
        "watch": "too_few",
    }
    assert found.alarm
    assert "45.00% of 20,000 units now, meant are 50.00%" in found.segments["app"].sentence
    assert "Wait for more" in found.segments["watch"].sentence


def test_segments_are_corrected_for_how_many_there_are():
    alone = phase_report(counted(10_000, 10_000, a=(9_650, 10_350)), RULE)
    assert alone.segments["a"].reading == "alarm"
    crowd = {f"s{i}": (5_000, 5_000) for i in range(200)}
    among = phase_report(counted(10_000, 10_000, a=(9_650, 10_350), **crowd), RULE)
    assert among.segments["a"].p == alone.segments["a"].p
    assert among.segments["a"].adjusted_p == pytest.approx(201 * alone.segments["a"].p)
    assert among.segments["a"].reading == "ok"


def test_an_alarm_stays_one_at_later_looks():
    first = phase_report(counted(9_000, 11_000, app=(4_000, 6_000)), RULE)
    later = phase_report(counted(60_000, 60_000, app=(30_000, 30_000)), RULE, earlier=first)
    assert first.phase.reading == later.phase.reading == "alarm"
    assert later.segments["app"].p == first.segments["app"].p
    assert phase_report(counted(60_000, 60_000), RULE).phase.reading == "ok"


def test_a_lost_arm_sounds_the_alarm_as_soon_as_units_are_enough():
    readings = [phase_report(counted(n, 0), RULE).phase.reading for n in range(0, 600, 5)]
    assert readings[0] == "too_few"
    turn = readings.index("alarm")
    assert set(readings[:turn]) == {"too_few"}
    assert set(readings[turn:]) == {"alarm"}


def test_any_number_of_arms():
    shares = {"control": 0.5, "a": 0.3, "b": 0.2}
    even = PhaseCounts("three", shares, {"control": 5_000, "a": 3_000, "b": 2_000})
    assert phase_report(even, RULE).phase.reading == "ok"
    uneven = PhaseCounts("three", shares, {"control": 5_000, "a": 3_400, "b": 1_600})
    found = phase_report(uneven, RULE).phase
    assert found.reading == "alarm"
    assert "a has 34.00%" in found.sentence or "b has 16.00%" in found.sentence


def test_twenty_segments_looked_at_six_times_keep_the_level():
    """300 phases as intended at alpha 5%: some segment alarms at some look in fewer than 5%."""
    random, rule, alarms = np.random.default_rng(8), RatioRule(alpha=0.05), 0
    rule = rule.model_copy(update={"planned_segment_units": 500})
    for _ in range(300):
        counts = np.cumsum(random.binomial(50, 0.5, size=(6, 20)), axis=0)
        earlier = None
        for look, row in enumerate(counts, start=1):
            segments = {f"s{i}": (int(n), 50 * look - int(n)) for i, n in enumerate(row)}
            earlier = phase_report(counted(0, 0, **segments), rule, earlier=earlier)
        alarms += earlier.alarm
    assert alarms / 300 <= 0.05


def test_bad_input_is_refused():
    with pytest.raises(ExperimentError, match="count every arm"):
        phase_report(PhaseCounts("x", SHARES, {"champion": 3}), RULE)
    with pytest.raises(ExperimentError, match="count every arm"):
        phase_report(
            PhaseCounts("x", SHARES, {"champion": 3, "challenger": 2}, {"s": {"champion": 1}}), RULE
        )
    with pytest.raises(ExperimentError, match="add up"):
        phase_report(PhaseCounts("x", {"a": 0.5, "b": 0.4}, {"a": 1, "b": 1}), RULE)
    with pytest.raises(ExperimentError, match="negative"):
        phase_report(counted(-1, 5), RULE)
    with pytest.raises(ValidationError):
        RatioRule(alpha=0.0)
    with pytest.raises(ValidationError):
        RatioRule(level=0.1)


def test_nothing_counted_is_too_few():
    found = phase_report(counted(0, 0), RULE)
    assert found.phase.reading == "too_few"
    assert found.phase.p == 1.0
    assert found.segments == {}
    assert not found.alarm
