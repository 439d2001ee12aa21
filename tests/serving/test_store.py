import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import orjson
import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.store import ExperimentStore, Exposure, Feedback, RequestIdReusedError
from serving.experiments.tables import exposures
from serving.experiments.writer import StoreWriter


def shown(number: int, *, item: int = 0, arm: str = "champion", **changes: object) -> Exposure:
    given = {
        "request_id": f"request-{number}",
        "item": item,
        "experiment_id": "e",
        "deployment_id": "d",
        "unit": f"{number:064x}",
        "arm": arm,
        "model_version": f"sentiment/{arm}",
        "text_sha256": "0" * 64,
        "prediction": orjson.dumps({"sentiment": {"label": "positive"}, "글": "맛"}),
        "latency_ms": 1.5,
        "created_at_us": number,
    }
    return Exposure(**(given | changes))


def said(number: int, sentiment: str | None = "positive", **changes: object) -> Feedback:
    given = {"request_id": f"request-{number}", "item": 0, "created_at_us": 100 + number}
    return Feedback(**(given | {"sentiment": sentiment} | changes))


@pytest.fixture
def store(store_url):
    store = ExperimentStore(store_url)
    yield store
    store.close()


def test_a_sentiment_for_an_answer_without_one_harms_no_other(store):
    summary = orjson.dumps({"task": "/v1/summary", "status": "ok"})
    store.write([shown(1, prediction=summary), shown(2)])
    results = store.write([], [said(1), said(2), said(1, None, reward=0.5)])
    assert results == ["no_sentiment", "stored", "stored"]
    assert store.counts()["outcomes"] == 2


def test_answers_count_once_their_unit_has_settled_and_their_window_has_closed(store):
    day = 86_400_000_000
    same = {"unit": "0" * 64}
    store.write([shown(n, created_at_us=n * day, **same) for n in range(1, 7)] + [shown(9)])
    late = [said(n, None, reward=n / 8, created_at_us=n * day + day // 2) for n in range(1, 7)]
    assert store.write([], late) == ["stored"] * 6
    for counting, days in (
        ({"settling_days": 2.0}, [3, 4, 5, 6]),
        ({"window_days": 1.0, "closed_by_us": 5 * day}, [1, 2, 3, 4]),
        ({"window_days": 1.0, "closed_by_us": 5 * day, "settling_days": 1.5}, [3, 4]),
    ):
        found = store.exposures_with_outcomes("e", "d", **counting)
        busy = found.unit == found.unit[-1]
        assert found.exposures[busy].tolist() == [len(days)]
        assert found.reward[busy].tolist() == [pytest.approx(sum(days) / len(days) / 8)]
        assert len(found.unit) == 1 + ("settling_days" not in counting)


def test_units_come_back_with_their_outcomes(store):
    store.write(
        [
            shown(2, arm="challenger"),
            shown(1),
            shown(1, item=1),
            shown(3),
            shown(9, deployment_id="other"),
        ]
    )
    assert (
        store.write([], [said(2, "negative"), said(1), said(1, None, item=1, reward=0.5)])
        == ["stored"] * 3
    )
    found = store.exposures_with_outcomes("e", "d")
    assert found.unit_hex() == [f"{number:064x}" for number in (1, 2, 3)]
    assert found.met("challenger").tolist() == [False, True, False]
    assert found.exposures.tolist() == [2, 1, 1]
    assert found.outcomes.tolist() == [2, 1, 0]
    assert found.labelled.tolist() == [1, 1, 0]
    np.testing.assert_array_equal(found.reward, [0.75, 0.0, np.nan])
    assert found.versions == {
        "champion": ("sentiment/champion",),
        "challenger": ("sentiment/challenger",),
    }


def test_an_empty_store_gives_empty_arrays(store):
    found = store.exposures_with_outcomes("e", "d")
    assert len(found.unit) == len(found.reward) == 0
    assert (found.arms, found.versions) == ((), {})


def test_writing_twice_changes_nothing(store):
    rows = [shown(number) for number in range(5)]
    for _ in range(2):
        store.write(rows)
    store.write([*rows, shown(5), shown(5)])
    assert store.counts() == {"exposures": 6, "outcomes": 0}


@pytest.mark.parametrize(
    "change", [{"text_sha256": "1" * 64}, {"unit": "f" * 64}, {"deployment_id": "next"}]
)
def test_a_request_id_is_answered_once(store, change):
    store.write([shown(1)])
    with pytest.raises(RequestIdReusedError, match="new X-Request-Id"):
        store.write([shown(2), shown(1, **change)])
    assert store.counts()["exposures"] == 1


def test_feedback_is_idempotent_late_and_out_of_order(store):
    store.write([shown(1), shown(2)])
    assert store.write([], [said(2), said(1), said(1)]) == ["stored", "stored", "duplicate"]
    assert store.write([], [said(1, created_at_us=999)]) == ["duplicate"]
    assert store.write([], [said(7)]) == ["unknown"]
    assert store.write([shown(7)], [said(7)]) == ["stored"]


def test_of_several_outcomes_the_latest_counts(store):
    store.write([shown(1)])
    store.write([], [said(1, "negative", created_at_us=300)])
    store.write([], [said(1, "positive", created_at_us=200)])
    found = store.exposures_with_outcomes("e", "d")
    assert found.reward.tolist() == [0.0]
    assert found.exposures.tolist() == found.outcomes.tolist() == [1]


def test_an_event_id_means_one_thing(store):
    store.write([shown(1)])
    first = said(1, event_id="click")
    assert store.write([], [first]) == ["stored"]
    assert store.write([], [first]) == ["duplicate"]
    assert store.write([], [dataclasses.replace(first, sentiment="negative")]) == ["conflict"]
    assert store.counts()["outcomes"] == 1


def test_predictions_are_kept_as_json(store):
    store.write([shown(1)])
    with store._engine.connect() as connection:
        kept = connection.execute(sa.select(exposures.c.prediction)).scalar_one()
    assert kept == {"sentiment": {"label": "positive"}, "글": "맛"}


def test_several_processes_worth_of_stores_open_and_write_at_once(store_url):
    def use(worker: int) -> None:
        store = ExperimentStore(store_url)
        for number in range(20):
            store.write([shown(number), shown(1_000 * (worker + 1) + number)])
        store.close()

    with ThreadPoolExecutor(6) as pool:
        done, _ = wait([pool.submit(use, worker) for worker in range(6)])
    for one in done:
        one.result()
    store = ExperimentStore(store_url)
    assert store.counts()["exposures"] == 20 + 6 * 20
    store.close()


def test_sqlite_is_opened_durably(tmp_path):
    store = ExperimentStore(f"sqlite:///{tmp_path / 'store.db'}")
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    store.close()


@pytest.mark.parametrize("bad", ["sqlite://", "sqlite:///:memory:"])
def test_a_store_that_keeps_nothing_is_refused(bad):
    with pytest.raises(ExperimentError, match="keeps nothing"):
        ExperimentStore(bad)


def test_a_store_that_cannot_be_opened_says_so_without_its_password(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExperimentError, match="cannot open"):
        ExperimentStore(f"sqlite:///{tmp_path / 'file' / 'store.db'}")
    (tmp_path / "broken.db").write_text("not a database at all, though long enough to be read" * 99)
    with pytest.raises(ExperimentError, match="not a database"):
        ExperimentStore(f"sqlite:///{tmp_path / 'broken.db'}")
    with pytest.raises(ExperimentError, match="cannot open") as refused:
        ExperimentStore("postgresql://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(refused.value)


def test_many_writers_share_commits_and_get_their_own_answers(store):
    writer = StoreWriter(store, max_waiting=10_000)
    writes = [writer.submit([shown(n)], [said(n), said(n + 5_000)]) for n in range(500)]
    assert [one.result(30) for one in writes] == [["stored", "unknown"]] * 500
    writer.close(10)
    assert store.counts() == {"exposures": 500, "outcomes": 500}


def test_one_bad_write_does_not_fail_its_neighbours(store):
    store.write([shown(1)])
    writer = StoreWriter(store, max_waiting=100)
    writes = [
        writer.submit([shown(2)]),
        writer.submit([shown(1, unit="f" * 64), shown(3)]),
        writer.submit([shown(4, arm=None)]),
        writer.submit([shown(5)], [said(1)]),
    ]
    assert writes[0].result(10) == []
    assert isinstance(writes[1].exception(10), RequestIdReusedError)
    assert "did not commit" in str(writes[2].exception(10))
    assert writes[3].result(10) == ["stored"]
    writer.close(10)
    assert store.counts() == {"exposures": 3, "outcomes": 1}


class StuckStore:
    """A store whose disk does not answer until it is told to."""

    name = "stuck"

    def __init__(self, error: Exception | None = None):
        self.go_on = threading.Event()
        self.entered = threading.Event()
        self.error = error

    def write(self, exposures, feedback):
        self.entered.set()
        self.go_on.wait(20)
        if self.error:
            raise self.error
        return []


def test_a_full_queue_is_an_error_and_closing_drains_it():
    stuck = StuckStore()
    writer = StoreWriter(stuck, max_waiting=2)
    first = writer.submit([shown(1)])
    assert stuck.entered.wait(10)
    waiting = [writer.submit([shown(2)]), writer.submit([shown(3)])]
    with pytest.raises(ExperimentError, match="wait for the store"):
        writer.submit([shown(4)])
    with pytest.raises(ExperimentError, match="was not drained"):
        writer.close(0.05)
    with pytest.raises(ExperimentError, match="closing"):
        writer.submit([shown(5)])
    stuck.go_on.set()
    assert [one.result(10) for one in (first, *waiting)] == [[], [], []]


@pytest.mark.parametrize(
    "error",
    [
        sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full")),
        RuntimeError("surprise"),
    ],
)
def test_a_store_that_refuses_fails_the_request_and_is_remembered_until_it_recovers(error):
    stuck = StuckStore(error)
    stuck.go_on.set()
    writer = StoreWriter(stuck, max_waiting=2)
    assert "send it again" in str(writer.submit([shown(1)]).exception(10))
    assert writer.failure is not None
    stuck.error = None
    assert writer.submit([shown(1)]).result(10) == []
    assert writer.failure is None
    writer.close(10)


FAILED = {"status": "failed", "prediction": orjson.dumps({"error": "engine_failed"})}


def test_a_request_that_failed_may_be_sent_again_and_both_are_kept(store):
    store.write([shown(1, **FAILED), shown(1, **FAILED), shown(1, created_at_us=2, **FAILED)])
    store.write([shown(1, created_at_us=3)])
    assert store.counts()["exposures"] == 3
    assert store.write([], [said(1)]) == ["stored"]
    found = store.exposures_with_outcomes("e", "d")
    assert (found.exposures.tolist(), found.failed.tolist()) == ([1], [2])
    assert (found.outcomes.tolist(), found.reward.tolist()) == ([1], [1.0])


def test_a_unit_whose_every_request_failed_still_met_its_arm(store):
    store.write([shown(1), shown(2, arm="challenger", **FAILED)])
    found = store.exposures_with_outcomes("e", "d")
    assert found.met("challenger").sum() == 1
    assert found.exposures[found.met("challenger")].tolist() == [0]
    assert store.write([], [said(2)]) == ["unknown"]


def test_only_what_was_dealt_by_chance_is_compared(store):
    reasons = ["override", "holdout", "outside_layer", "outside_coverage", "forced", "mirrored"]
    store.write([shown(1), *(shown(n, why=why) for n, why in enumerate(reasons, 2))])
    assert store.counts()["exposures"] == 7
    assert len(store.exposures_with_outcomes("e", "d").unit) == 1


def test_a_shadows_answer_stands_beside_the_one_that_was_sent(store):
    other = orjson.dumps({"sentiment": {"label": "negative"}})
    shadow = shown(1, arm="challenger", why="mirrored", prediction=other)
    store.write([shadow, shadow])
    store.write([shown(1)])
    assert store.counts()["exposures"] == 2
    assert store.write([], [said(1)]) == ["stored"]
    assert store.exposures_with_outcomes("e", "d").reward.tolist() == [1.0]


def test_metrics_of_one_answer_are_kept_apart(store):
    store.write([shown(1)])
    clicks = [said(1, None, metric="clicks", reward=value) for value in (3.0, 3.0, 5.0)]
    assert store.write([], clicks) == ["stored", "duplicate", "stored"]
    assert store.write([], [said(1, None, reward=0.25)]) == ["stored"]
    assert store.counts()["outcomes"] == 3
    assert store.exposures_with_outcomes("e", "d").reward.tolist() == [0.25]
    again = said(1, None, metric="visits", reward=3.0, event_id="한 번")
    assert store.write([], [again]) == ["stored"]
    other = said(1, None, metric="clicks", reward=3.0, event_id="한 번")
    assert store.write([], [other]) == ["conflict"]
