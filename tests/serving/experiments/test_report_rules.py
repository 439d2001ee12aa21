"""Which rule speaks first; the figures are made up, as only their order is asked."""

import pytest

from serving.experiments.evidence import Evidence, Missing
from serving.experiments.inference.ratio_report import PhaseCounts, RatioRule, phase_report
from serving.experiments.report import ArmRow, MetricRow, ReportPhase
from serving.experiments.report_rules import rule


def phase(kind="ab", days=3.0, **changes):
    given = {"kind": kind, "number": 1, "opened_us": 0, "days": days, "max_days": 14.0}
    return ReportPhase(**(given | {"min_units": 100} | changes))


def arm(name, units=500):
    return ArmRow(
        name=name,
        model=f"m/{name}",
        share=0.5,
        units=units,
        asks=units,
        answers=units,
        failures=0,
        outcomes=units,
    )


def row(reading, name="int8", metric="stars", role="primary", difference=0.1, **changes):
    given = {
        "metric": metric,
        "role": role,
        "arm": name,
        "kind": "mean",
        "method": "sequence",
        "direction": "increase",
        "margin": 0.2,
        "difference": difference,
        "low": difference - 0.1,
        "high": difference + 0.1,
        "level": 0.95,
        "reading": reading,
        "units": (500, 500),
    }
    return MetricRow(**(given | changes))


def evidence(**changes):
    arms = changes.pop("arms", (arm("float"), arm("int8")))
    counts = {each.name: each.units for each in arms}
    shares = dict.fromkeys(counts, 1 / len(counts))
    given = {
        "phase": phase(),
        "arms": arms,
        "versions": {each.name: (each.model,) for each in arms},
        "strangers": (),
        "crossed": 0,
        "ratio": phase_report(PhaseCounts("phase 1", shares, counts), RatioRule()),
        "missing": Missing(),
        "known_units": tuple(each.units for each in arms),
        "primary": (row("undecided"),),
    }
    return Evidence(**(given | changes))


TROUBLE = [
    ({"arms": (arm("float", 0), arm("int8", 0))}, "invalid", "Nobody was answered", "기록이 없어"),
    ({"versions": {"int8": ("m/int8", "m/9")}}, "invalid", "m/9 answered too", "섞였습니다"),
    ({"strangers": ("turbo",)}, "invalid", "turbo", "turbo"),
    ({"crossed": 12}, "invalid", "12 units", "12개 단위"),
    ({"arms": (arm("float", 900), arm("int8", 500))}, "invalid", "not dealt", "배정되지"),
    (
        {"secondary": (row("worse", role="guardrail", metric="error_rate"),)},
        "roll_back",
        "Guardrail breached: int8's error rate",
        "안전 지표 위반: int8 군의 오류율",
    ),
    ({"missing": Missing(gaps=("int8",))}, "invalid", "Outcomes of int8", "int8 군의 결과"),
    ({"missing": Missing(ripe_share=0.2, allowed=0.1)}, "invalid", "20.0% of", "20.0%가"),
    ({"arms": (arm("float", 60), arm("int8", 50))}, "continue", "int8 has 50 units", "50개"),
    (
        {"secondary": (row("worse", role="guardrail", metric="clicks"),)},
        "roll_back",
        "metric clicks",
        "지표 clicks",
    ),
    ({"known_units": (500, 40)}, "continue", "40 units with an outcome", "결과가 있는 단위는 40개"),
    ({"primary": (row("worse", difference=-0.5),)}, "roll_back", "It is worse", "더 나쁩니다"),
    ({"primary": (row("better", difference=0.5),)}, "promote", "It is better", "더 좋습니다"),
    ({"primary": (row("not_worse"),)}, "promote", "smaller than the accepted 0.2", "허용한 0.2"),
    ({"phase": phase(days=14.0)}, "invalid", "within the agreed 14 days", "14일 안에"),
    ({}, "continue", "Too wide to decide", "구간이 넓어"),
]


@pytest.mark.parametrize(("changes", "decision", "en", "ko"), TROUBLE)
def test_each_rule_says_why_in_both_languages(changes, decision, en, ko):
    found = rule(evidence(**changes))
    assert found.decision == decision
    assert en in found.said.en
    assert ko in found.said.ko
    assert found.advance is None


@pytest.mark.parametrize("first", range(len(TROUBLE) - 1))
def test_a_rule_speaks_before_all_that_follow(first):
    """Two troubles at once: the one that stands first in the list is told."""
    for later in range(first + 1, len(TROUBLE) - 1):
        one, other = TROUBLE[first][0], TROUBLE[later][0]
        # The agreed days are no rule of their own: they say what becomes of too little.
        if set(one) & set(other) or "phase" in other:
            continue
        found = rule(evidence(**(other | one)))
        assert found.decision == TROUBLE[first][1], (first, later, found.said.en)
        assert TROUBLE[first][2] in found.said.en


def test_the_best_of_the_winners_is_promoted_by_its_direction():
    fast = [
        row("better", name, difference=d, direction="decrease", metric="latency_ms")
        for name, d in (("int8", -3.0), ("distilled", -9.0))
    ]
    three = (arm("float"), arm("int8"), arm("distilled"))
    found = rule(evidence(arms=three, primary=tuple(fast)))
    assert (found.decision, found.arm) == ("promote", "distilled")
    assert "-9.0 ms" in found.said.en


def test_all_arms_that_are_worse_are_rolled_back_together():
    three = (arm("float"), arm("int8"), arm("distilled"))
    both = tuple(row("worse", name, difference=-0.5) for name in ("int8", "distilled"))
    found = rule(evidence(arms=three, primary=both))
    assert (found.decision, found.arm) == ("roll_back", None)
    one = rule(evidence(arms=three, primary=(both[0], row("undecided", "distilled"))))
    assert one.decision == "continue"
    assert "already: int8" in one.said.en


@pytest.mark.parametrize("kind", ["shadow", "canary"])
def test_before_the_comparison_a_verdict_says_whether_to_go_on(kind):
    going = rule(evidence(phase=phase(kind), primary=(row("better", difference=0.5),)))
    assert (going.decision, going.advance) == ("continue", True)
    few = rule(evidence(phase=phase(kind), arms=(arm("float", 60), arm("int8", 60))))
    assert (few.decision, few.advance) == ("continue", False)
    late = phase(kind, days=20.0)
    never = rule(evidence(phase=late, arms=(arm("float", 60), arm("int8", 60))))
    assert (never.decision, never.advance) == ("invalid", False)
    worse = row("worse", role="guardrail", metric="error_rate")
    stopped = rule(evidence(phase=phase(kind), secondary=(worse,)))
    assert (stopped.decision, stopped.advance) == ("roll_back", False)


def test_what_is_still_open_of_a_winner_is_told():
    waits = row("undecided", role="guardrail", metric="error_rate")
    found = rule(evidence(primary=(row("better", difference=0.5),), secondary=(waits,)))
    assert found.decision == "promote"
    assert "none is ruled out yet: error rate" in found.said.en
    assert "배제되지도 않은 지표: 오류율" in found.said.ko
