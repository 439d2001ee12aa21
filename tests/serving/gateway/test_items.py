"""What the store keeps of every review that an arm was asked: answered, failed, late, repeated."""

import sqlite3
import time

import orjson
import pytest


def wait_for(what, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def asked(tmp_path):
    """What arms were asked, by the store: (arm, status, why, prediction), in order of items."""

    def read():
        store = sqlite3.connect(tmp_path / "store.db")
        rows = store.execute(
            "SELECT arm, status, why, prediction FROM exposures ORDER BY created_at_us, item"
        ).fetchall()
        store.close()
        return [(*row[:3], orjson.loads(row[3])) for row in rows]

    return read


def test_what_an_arm_could_not_answer_is_stored_before_the_refusal(
    start_embedding, faulty, deployment, analyze, assert_error, asked
):
    with start_embedding(serve={"deployment": deployment}) as client:
        for engine in faulty:
            engine.fault = "nan"
        assert_error(analyze(client, "맛있어요", "", unit="u"), 503, "engine_failed")
        ((_, status, why, said),) = asked()
        assert (status, why, said) == ("failed", "assigned", {"error": "engine_failed"})
        for engine in faulty:
            engine.fault = ""
        wait_for(lambda: client.get("/ready").status_code == 200)
        body = {"reviews": [{"text": "맛있어요", "unit": "u"}]}
        headers = {"X-Request-Id": "again"}
        assert client.post("/v1/analyze", json=body, headers=headers).status_code == 200
    assert [row[1] for row in asked()] == ["failed", "ok"]


def test_an_arm_that_is_late_fails_its_own_reviews_alone(
    start_embedding, faulty, deployment, asked
):
    # So many units that both arms are met.
    reviews = [{"text": "맛있어요", "unit": f"u{number}"} for number in range(16)]
    with start_embedding(serve={"deployment": deployment}, deadline_s=1.0) as client:
        faulty[1].gate.clear()
        answer = client.post("/v1/analyze", json={"reviews": reviews})
        faulty[1].gate.set()
    assert answer.status_code == 200
    results = answer.json()["results"]
    by_arm = {(item["arm"], item["status"]) for item in results}
    assert by_arm == {("champion", "ok"), ("challenger", "error")}
    codes = {item["error"]["code"] for item in results if item["status"] == "error"}
    assert codes == {"deadline_passed"}
    failed = [row for row in asked() if row[1] == "failed"]
    assert {row[0] for row in failed} == {"challenger"}
    assert {row[3]["error"] for row in failed} == {"deadline_passed"}


def test_what_costs_more_compute_says_so(start_embedding, deployment, analyze, tmp_path):
    with start_embedding(serve={"deployment": deployment}) as client:
        assert analyze(client, "맛", "국물이 맛있어요 " * 500, unit="u").status_code == 200
    store = sqlite3.connect(tmp_path / "store.db")
    (short,), (long,) = store.execute("SELECT cost FROM exposures ORDER BY item").fetchall()
    store.close()
    assert 0 < short < long


def test_a_store_that_refuses_gives_no_answer_and_one_that_is_back_does(
    start_embedding, deployment, analyze, assert_error, tmp_path
):
    with start_embedding(serve={"deployment": deployment}) as client:
        assert analyze(client, "맛있어요").status_code == 200
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON exposures "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        message = assert_error(analyze(client, "별로"), 503, "store_unavailable")
        assert "disk is full" in message
        other.execute("DROP TRIGGER full")
        assert analyze(client, "별로").status_code == 200
        assert other.execute("SELECT count(*) FROM exposures").fetchone() == (2,)
        other.close()


def test_a_clock_that_is_set_back_leaves_the_order_of_events(
    start_embedding, deployment, analyze, monkeypatch, tmp_path
):
    real = time.time_ns
    with start_embedding(serve={"deployment": deployment}) as client:
        request_id = analyze(client, "맛있어요").json()["request_id"]
        said = {"request_id": request_id, "item": 0}
        client.post("/v1/feedback", json=said | {"reward": 0.0, "event_id": "first"})
        monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600_000_000_000)
        client.post("/v1/feedback", json=said | {"reward": 1.0, "event_id": "second"})
    store = sqlite3.connect(tmp_path / "store.db")
    rewards = store.execute("SELECT reward FROM outcomes ORDER BY created_at_us").fetchall()
    answered = store.execute("SELECT max(created_at_us) FROM exposures").fetchone()
    first = store.execute("SELECT min(created_at_us) FROM outcomes").fetchone()
    store.close()
    assert rewards == [(0.0,), (1.0,)]
    assert answered < first


def test_feedback_before_its_answer_is_refused_and_taken_once_when_sent_again(
    start_embedding, deployment, assert_error
):
    said = {"request_id": "early", "item": 0, "reward": 1.0, "event_id": "click-1"}
    with start_embedding(serve={"deployment": deployment}) as client:
        assert_error(client.post("/v1/feedback", json=said), 404, "unknown_answer")
        body, headers = {"reviews": [{"text": "맛있어요"}]}, {"X-Request-Id": "early"}
        assert client.post("/v1/analyze", json=body, headers=headers).status_code == 200
        statuses = [client.post("/v1/feedback", json=said).json()["status"] for _ in range(3)]
    assert statuses == ["stored", "duplicate", "duplicate"]
