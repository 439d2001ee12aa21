import pytest

from bench import ab_rollback
from bench.ab_rollback import TURNED_S, Turns, figures_of, turns_of


def reply(at_s, arm, **more):
    return {"at_s": at_s, "latency_ms": 100.0, "status": 200, "problem": "", "arm": arm} | more


def said(*replies, duplicated=0):
    totals = {"duplicated": duplicated, "p99_ms": 100.0}
    return {"began_at": 1_000.0, "replies": list(replies), "totals": totals}


def test_the_time_is_until_the_challengers_last_answer_has_ended():
    load = said(
        reply(0.0, "challenger"),
        reply(1.2, "challenger"),
        reply(1.4, "control"),
        reply(1.0 + TURNED_S + 0.5, "challenger"),
    )
    turns = turns_of([1_001.0], load, {"r0", "r1", "r2", "r3"})
    assert turns.rollback_s == pytest.approx((0.3,))
    assert (turns.failed, turns.unstored, turns.sent) == (0, 0, 4)


def test_what_failed_got_lost_came_twice_or_is_not_stored_is_counted():
    load = said(
        reply(0.0, "challenger"),
        reply(0.1, None, status=503),
        reply(0.2, None, status=0, latency_ms=None),
        reply(0.3, "control", problem="the reply is to request 'r9'"),
        reply(0.4, "control"),
        duplicated=1,
    )
    turns = turns_of([1_001.0], load, {"r0"})
    assert (turns.failed, turns.unstored) == (4, 1)
    figures = figures_of(turns)
    assert figures["rollback_failed_requests"].value == 5
    assert not figures["rollback_failed_requests"].met
    assert figures["rollback_s"].met


def test_the_slowest_of_several_turns_counts():
    figure = figures_of(Turns((0.2, 6.0, 0.4), 0, 0, 10, 5.0))["rollback_s"]
    assert figure.value == 6.0
    assert not figure.met


def test_a_challenger_that_answered_nobody_is_no_rollback():
    with pytest.raises(RuntimeError, match="before breach 1"):
        turns_of([1_001.0], said(reply(0.0, "control")), {"r0"})


def test_a_gateway_is_turned_under_load(monkeypatch):
    monkeypatch.setattr(ab_rollback, "RATE", 40.0)
    monkeypatch.setattr(ab_rollback, "TURNS", 1)
    monkeypatch.setattr(ab_rollback, "DEALT_S", 2.5)
    monkeypatch.setattr(ab_rollback, "TURNED_S", 2.5)
    figures = ab_rollback.measure(lambda _: None)
    assert figures["rollback_failed_requests"].value == 0
    assert figures["rollback_s"].value > 0
