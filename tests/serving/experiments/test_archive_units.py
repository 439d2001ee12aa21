import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import ExperimentError
from serving.experiments import export as exporting
from serving.experiments.archive_units import units_of_archive
from serving.experiments.database import open_database
from serving.experiments.export import export
from serving.experiments.retention import retain
from serving.experiments.store import ExperimentStore, exposure_event_id
from serving.experiments.tables import exposures, outcomes

DAY = 86_400_000_000
ARMS = ("champion", "challenger")

ANSWERS = st.lists(
    st.fixed_dictionaries(
        {
            "request_id": st.sampled_from([f"request-{number}" for number in range(8)]),
            "item": st.integers(0, 1),
            "experiment_id": st.sampled_from(["e", "e", "e", "other"]),
            "deployment_id": st.sampled_from(["d", "d", "d", "next"]),
            "unit": st.sampled_from([f"{number:064x}" for number in (0, 1, 255, 1 << 255)]),
            "arm": st.sampled_from(ARMS),
            "model_version": st.sampled_from(["sentiment/1", "sentiment/2"]),
            "created_at_us": st.integers(0, 4).map(lambda days: days * DAY),
            "why": st.sampled_from(["assigned", "assigned", "forced", "mirrored"]),
            "status": st.sampled_from(["ok", "ok", "degraded", "failed"]),
        }
    ),
    max_size=12,
    unique_by=lambda row: (row["request_id"], row["item"]),
)
SAID = st.lists(
    st.fixed_dictionaries(
        {
            "event_id": st.one_of(
                st.integers(0, 60).map(lambda number: f"{number:032x}"),
                st.sampled_from(["주문-1", "b", "A" * 32, "f" * 31, "g" * 32]),
            ),
            "request_id": st.sampled_from([f"request-{number}" for number in range(9)]),
            "item": st.integers(0, 1),
            # Multiples of 1/8: their sums are exact, in whatever order they are added.
            "reward": st.integers(0, 8).map(lambda eighths: eighths / 8),
            "label": st.one_of(st.none(), st.just({"sentiment": "positive"})),
            "metric": st.sampled_from(["reward", "reward", "clicks"]),
            "created_at_us": st.integers(0, 6).map(lambda days: days * DAY),
        }
    ),
    max_size=25,
    unique_by=lambda row: row["event_id"],
)


def fill(url, answers, said):
    engine = open_database(url)
    same = {"text_sha256": "0" * 64, "prediction": {}, "latency_ms": 1.0}
    with engine.begin() as connection:
        for table in (exposures, outcomes):
            connection.execute(table.delete())
        for row in answers:
            event_id = exposure_event_id(row["request_id"], row["item"])
            if row.get("why") == "mirrored" or row.get("status") == "failed":
                event_id = event_id[::-1]  # these have an id that no outcome finds
            connection.execute(exposures.insert(), row | same | {"event_id": event_id})
        if said:
            connection.execute(outcomes.insert(), said)
    engine.dispose()


def from_store(url, **window):
    store = ExperimentStore(url)
    try:
        return store.exposures_with_outcomes("e", "d", **window)
    finally:
        store.close()


def assert_same(found, expected):
    for name, values in dataclasses.asdict(expected).items():
        if name in {"versions", "arms"}:
            assert getattr(found, name) == values
        else:
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)
            assert getattr(found, name).dtype == values.dtype


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    answers=ANSWERS,
    said=SAID,
    window=st.sampled_from([None, 0.5, 1.0, 3.0]),
    settling=st.sampled_from([0.0, 0.0, 0.5, 2.0]),
    closed=st.sampled_from([None, 0, 3, 5]),
    rows_at_once=st.sampled_from([2, 50_000]),
    cut=st.integers(1, 6),
)
def test_the_archive_says_what_the_store_says(
    tmp_path_factory, monkeypatch, answers, said, window, settling, closed, rows_at_once, cut
):
    monkeypatch.setattr(exporting, "_BATCH_ROWS", rows_at_once)
    folder = tmp_path_factory.mktemp("both")
    url = f"sqlite:///{folder / 'store.db'}"
    fill(url, answers, said)
    counting = {"window_days": window, "settling_days": settling}
    if window is not None and closed is not None:
        counting["closed_by_us"] = closed * DAY
    expected = from_store(url, **counting)
    export(url, folder / "whole")
    assert_same(units_of_archive(folder / "whole", "e", "d", **counting), expected)
    # The same rows in several archives, one of them twice.
    out = folder / "parts"
    export(url, out / "again", before_us=cut * DAY)
    for days in (cut, 0.5):
        retain(url, out, older_than_days=days, now_us=7 * DAY)
    assert_same(units_of_archive(out, "e", "d", **counting), expected)


def test_answers_count_once_their_unit_has_settled_and_their_window_has_closed(tmp_path):
    """One unit that answers daily from day 1 to 6, each outcome known half a day later."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    answers, said = [], []
    for day in range(1, 7):
        same = {"request_id": f"답변-{day}", "item": 0, "created_at_us": day * DAY}
        answers.append(
            same
            | {"experiment_id": "e", "deployment_id": "d", "unit": "0" * 64}
            | {"arm": "challenger", "model_version": "sentiment/1"}
        )
        late = {"event_id": f"{day}", "reward": day / 8, "label": None}
        said.append(same | late | {"created_at_us": day * DAY + DAY // 2})
    fill(url, answers, said)
    export(url, tmp_path / "archive")
    for counting, days in (
        ({"settling_days": 2.0}, [3, 4, 5, 6]),
        ({"settling_days": 2.5}, [4, 5, 6]),
        ({"window_days": 1.0, "closed_by_us": 5 * DAY}, [1, 2, 3, 4]),
        ({"window_days": 1.0, "closed_by_us": 5 * DAY - 1, "settling_days": 1.0}, [2, 3]),
        ({"settling_days": 6.0}, []),
    ):
        found = from_store(url, **counting)
        assert found.exposures.sum() == found.outcomes.sum() == len(days)
        assert found.reward.tolist() == [sum(days) / len(days) / 8 for _ in days[:1]]
        assert_same(units_of_archive(tmp_path / "archive", "e", "d", **counting), found)


@pytest.mark.parametrize("settling", [-1.0, float("nan"), float("inf"), 1e9])
def test_bad_settling_and_windows_that_cannot_close_are_told_alike(tmp_path, settling):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fill(url, [], [])
    export(url, tmp_path / "out")
    for wrong, said in (
        ({"settling_days": settling}, "settling_days="),
        ({"closed_by_us": DAY}, "without window_days"),
    ):
        for read in (
            from_store,
            lambda _, **kw: units_of_archive(tmp_path / "out", "e", "d", **kw),
        ):
            with pytest.raises(ExperimentError, match=said):
                read(url, **wrong)


def test_a_late_orphan_in_a_later_archive_counts(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    answer = {
        "request_id": "r",
        "item": 0,
        "experiment_id": "e",
        "deployment_id": "d",
        "unit": "0" * 64,
        "arm": "challenger",
        "model_version": "sentiment/1",
        "created_at_us": DAY,
    }
    said = {"request_id": "r", "item": 0, "label": None}
    fill(url, [answer], [said | {"event_id": "first", "reward": 1.0, "created_at_us": DAY}])
    retain(url, tmp_path / "out", older_than_days=1, now_us=9 * DAY)
    fill(url, [], [said | {"event_id": "late", "reward": 0.25, "created_at_us": 3 * DAY}])
    (second,) = retain(url, tmp_path / "out", older_than_days=1, now_us=9 * DAY)
    assert second.orphans == 1
    assert units_of_archive(tmp_path / "out", "e", "d").reward.tolist() == [0.25]
    within = units_of_archive(tmp_path / "out", "e", "d", window_days=1)
    assert within.reward.tolist() == [1.0]
    assert within.labelled.tolist() == [0]


@pytest.mark.parametrize("window", [0, -1, float("nan"), float("inf"), 1e9])
def test_windows_that_mean_nothing_are_refused(tmp_path, window):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fill(url, [], [])
    export(url, tmp_path / "out")
    for ask in (
        lambda: from_store(url, window_days=window),
        lambda: units_of_archive(tmp_path / "out", "e", "d", window_days=window),
    ):
        with pytest.raises(ExperimentError, match="window_days="):
            ask()


def test_no_archive_and_an_altered_one_are_refused(tmp_path):
    with pytest.raises(ExperimentError, match="holds no archive"):
        units_of_archive(tmp_path, "e", "d")
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fill(url, [], [])
    export(url, tmp_path / "out" / "one")
    assert len(units_of_archive(tmp_path / "out", "e", "d").unit) == 0
    (tmp_path / "out" / "one" / "exposures.parquet").write_bytes(b"")
    with pytest.raises(ExperimentError, match="no whole archive"):
        units_of_archive(tmp_path / "out", "e", "d")


def test_more_rows_than_places_are_refused_before_any_is_read(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fill(url, [], [])
    archive = dataclasses.replace(export(url, tmp_path / "out"), exposures=1 << 31)
    monkeypatch.setattr("serving.experiments.archive_units.archives_in", lambda _: [archive])
    with pytest.raises(ExperimentError, match="2147483648 exposures"):
        units_of_archive(tmp_path / "out", "e", "d")


def test_event_ids_that_begin_alike_are_told_apart(tmp_path, monkeypatch):
    """Real event ids are SHA-256 and do not; a file may say anything."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    monkeypatch.setattr(
        "serving.experiments.archive_files.exposure_event_id",
        lambda request_id, item: f"{7:016x}{int(request_id):016x}",
    )
    monkeypatch.setitem(
        fill.__globals__, "exposure_event_id", lambda r, i: f"{7:016x}{int(r):016x}"
    )
    answers = [
        {
            "request_id": str(number),
            "item": 0,
            "experiment_id": "e",
            "deployment_id": "d",
            "unit": f"{number % 10:064x}",
            "arm": ARMS[number % 2],
            "model_version": "sentiment/1",
            "created_at_us": number,
        }
        for number in range(50)
    ]
    said = [
        {
            "event_id": f"{number}-{place}",
            "request_id": str(number),
            "item": 0,
            "reward": (number + place) % 8 / 8,
            "label": None,
            "created_at_us": place,
        }
        for number, place in itertools.product(range(0, 60, 3), range(2))
    ]
    fill(url, answers, said)
    export(url, tmp_path / "out")
    assert_same(units_of_archive(tmp_path / "out", "e", "d"), from_store(url))
