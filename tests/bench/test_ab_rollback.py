import pytest

from bench.ab_rollback import Rollback, figures_of, rollback_of

AFTER = [{"at_s": 9.0, "latency_ms": 5.0, "status": 200, "problem": "", "arm": "control"}] * 200


def reply(at_s, arm, **more):
    return {"at_s": at_s, "latency_ms": 100.0, "status": 200, "problem": "", "arm": arm} | more


def said(*replies, duplicated=0, after=AFTER):
    totals = {"duplicated": duplicated, "p99_ms": 100.0}
    return {"began_at": 1_000.0, "replies": [*replies, *after], "totals": totals}


def stored(count):
    return {f"r{number}" for number in range(count)}


def test_the_time_is_until_the_challengers_last_answer_has_ended():
    load = said(reply(0.0, "challenger"), reply(1.2, "challenger"), reply(1.4, "control"))
    found = rollback_of(1_001.0, load, stored(203))
    assert found.rollback_s == pytest.approx(0.3)
    assert (found.failed, found.unstored, found.sent) == (0, 0, 203)


def test_what_failed_got_lost_came_twice_or_is_not_stored_is_counted():
    load = said(
        reply(0.0, "challenger"),
        reply(0.1, None, status=503),
        reply(0.2, None, status=0, latency_ms=None),
        reply(0.3, "control", problem="the reply is to request 'r9'"),
        reply(0.4, "control"),
        duplicated=1,
    )
    found = rollback_of(1_001.0, load, stored(205) - {"r4"})
    assert (found.failed, found.unstored) == (4, 1)
    figures = figures_of([found])
    assert figures["rollback_failed_requests"].value == 5
    assert not figures["rollback_failed_requests"].met
    assert figures["rollback_s"].met


def test_the_slowest_of_several_breaches_counts():
    found = [Rollback(seconds, 0, 0, 10, 5.0) for seconds in (0.2, 6.0, 0.4)]
    figure = figures_of(found)["rollback_s"]
    assert figure.value == 6.0
    assert not figure.met


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (said(reply(0.0, "control")), "nobody before the breach"),
        (said(reply(0.0, "challenger"), after=[*AFTER, reply(9.1, "challenger")]), "very end"),
    ],
)
def test_what_is_no_rollback_has_no_time(load, message):
    with pytest.raises(RuntimeError, match=message):
        rollback_of(1_001.0, load, stored(300))
