import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments import retention
from serving.experiments.export import export
from serving.experiments.retention import retain
from serving.experiments.store import ExperimentStore, Exposure, Feedback, exposure_event_id
from serving.experiments.tables import exposures, outcomes

DAY = 86_400_000_000
NOW = 100 * DAY


def shown(number, **changes):
    given = {
        "request_id": f"request-{number}",
        "item": 0,
        "experiment_id": "e",
        "deployment_id": "d",
        "unit": f"{number:064x}",
        "arm": "champion",
        "model_version": "sentiment/1",
        "text_sha256": "0" * 64,
        "prediction": orjson.dumps({"sentiment": {"label": "positive"}}),
        "latency_ms": 1.5,
        "created_at_us": number * DAY,
    }
    return Exposure(**(given | changes))


def said(number, **changes):
    given = {"request_id": f"request-{number}", "item": 0, "created_at_us": number * DAY}
    return Feedback(**(given | {"sentiment": "positive"} | changes))


@pytest.fixture
def few_at_once(monkeypatch):
    monkeypatch.setattr(retention, "_ROWS_AT_ONCE", 7)


def in_store(store, table):
    with store._engine.connect() as connection:
        return sorted(connection.execute(sa.select(table.c.event_id)).scalars())


def archived(out):
    """Event ids in all archives of a folder, of exposures and of outcomes."""
    shown_ids, said_ids = [], []
    for folder in sorted(path for path in out.iterdir() if (path / "manifest.json").exists()):
        shown_ids += pq.read_table(folder / "exposures.parquet")["event_id"].to_pylist()
        rows = pq.read_table(folder / "outcomes.parquet").to_pylist()
        said_ids += [row["event_key"] or row["event_id"].hex() for row in rows]
    return sorted(one.hex() for one in shown_ids), sorted(said_ids)


@pytest.mark.usefixtures("few_at_once")
def test_what_is_old_leaves_and_rows_in_are_rows_out(store, url, tmp_path):
    store.write([shown(number) for number in range(1, 100)])
    # The last outcome is young, its exposure old: they go together.
    store.write([], [said(number) for number in range(1, 99)])
    store.write([], [said(3, sentiment="negative", event_id="late", created_at_us=NOW)])
    before = in_store(store, exposures), in_store(store, outcomes)
    told = []
    (archive,) = retain(
        url,
        tmp_path / "out",
        older_than_days=30,
        now_us=NOW,
        on_rows=lambda what, rows: told.append((what, rows)),
    )
    assert archive.folder == tmp_path / "out" / "19700312T000000.000000Z"
    assert (archive.exposures, archive.outcomes, archive.orphans) == (69, 70, 0)
    assert store.counts() == {"exposures": 30, "outcomes": 29}
    shown_ids, said_ids = archived(tmp_path / "out")
    assert sorted(shown_ids + in_store(store, exposures)) == before[0]
    assert sorted(said_ids + in_store(store, outcomes)) == before[1]
    assert "late" in said_ids
    assert told[-1] == ("removed outcomes", 70)
    assert retain(url, tmp_path / "out", older_than_days=30, now_us=NOW) == ()
    (second,) = retain(url, tmp_path / "out", older_than_days=20, now_us=NOW)
    assert (second.exposures, second.outcomes) == (10, 10)


@pytest.mark.usefixtures("store")
def test_an_empty_store_leaves_no_folder(url, tmp_path):
    assert retain(url, tmp_path / "out", older_than_days=1) == ()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_an_outcome_that_comes_while_its_exposure_leaves_is_archived_later(
    store, url, tmp_path, monkeypatch
):
    store.write([shown(1)], [said(1)])
    remove = retention._remove

    def late(*arguments):
        # The gateway has found the exposure, and writes what was said of it.
        store.write([], [said(1, sentiment=None, reward=0.5, event_id="late", created_at_us=50)])
        return remove(*arguments)

    monkeypatch.setattr(retention, "_remove", late)
    (first,) = retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    monkeypatch.undo()
    assert (first.exposures, first.outcomes) == (1, 1)
    assert store.counts() == {"exposures": 0, "outcomes": 1}
    (second,) = retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    assert (second.exposures, second.outcomes, second.orphans) == (0, 1, 1)
    assert second.folder.name == "19700312T000000.000000Z-2"
    (orphan,) = pq.read_table(second.folder / "outcomes.parquet").to_pylist()
    assert orphan["exposure_event_id"].hex() == exposure_event_id("request-1", 0)
    assert (orphan["event_key"], orphan["reward"]) == ("late", 0.5)
    assert store.counts() == {"exposures": 0, "outcomes": 0}


def test_a_disk_that_is_full_loses_nothing_and_leaves_nothing_in_the_way(
    store, url, tmp_path, monkeypatch
):
    store.write([shown(1), shown(2)], [said(1)])

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr("serving.experiments.archive_files.write_manifest", refuse)
        with pytest.raises(ExperimentError, match="No space left"):
            retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    assert store.counts() == {"exposures": 2, "outcomes": 1}
    (archive,) = retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    assert (archive.exposures, archive.outcomes) == (2, 1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".lock",
        archive.folder.name,
    ]


def test_a_request_id_that_is_used_again_meanwhile_is_not_taken_for_the_old_one(
    store, url, tmp_path, monkeypatch
):
    store.write([shown(1), shown(2)], [])
    rename = retention.Path.rename

    def cut(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(retention.Path, "rename", cut)
    with pytest.raises(ExperimentError, match="No space left"):
        retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    monkeypatch.setattr(retention.Path, "rename", rename)
    # Its rows are gone, its folder not yet renamed: a run of later does both again.
    store.write([shown(1, unit="f" * 64, created_at_us=NOW)])
    (archive,) = retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    assert archive.exposures == 2
    assert store.counts()["exposures"] == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from serving.experiments import export, retention

url, out, where, when, calls = sys.argv[1:]
retention._ROWS_AT_ONCE = 10
module, name = where.split(".")
owner = {"export": export, "retention": retention, "Path": Path}[module]
real, left = getattr(owner, name), int(calls)

def dying(*arguments, **named):
    global left
    left -= 1
    if left == 0 and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = real(*arguments, **named)
    if left == 0 and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

setattr(owner, name, dying)
retention.retain(url, Path(out), older_than_days=30, now_us=100 * 86_400_000_000)
"""


@pytest.mark.parametrize(
    ("where", "when", "calls"),
    [
        ("export.write_whole", "after", 1),
        ("export.seal", "before", 1),
        ("export.seal", "after", 1),
        ("retention.time.sleep", "before", 3),
        ("retention._remove_rows", "before", 2),
        ("retention.time.sleep", "before", 10),
        ("Path.rename", "before", 1),
        ("Path.rename", "after", 1),
    ],
)
def test_a_run_that_is_killed_at_any_step_is_ended_by_the_next(
    store, url, tmp_path, where, when, calls
):
    store.write([shown(number) for number in range(1, 100)])
    store.write([], [said(number) for number in range(1, 90)])
    before = in_store(store, exposures), in_store(store, outcomes)
    script = KILLED
    if where == "retention.time.sleep":
        script = script.replace('"retention": retention', '"retention": retention.time')
        where = "retention.sleep"
    command = [sys.executable, "-c", script, url, str(tmp_path / "out"), where, when, str(calls)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr

    def everything():
        shown_ids, said_ids = archived(tmp_path / "out")
        return (
            sorted({*shown_ids, *in_store(store, exposures)}),
            sorted({*said_ids, *in_store(store, outcomes)}),
        )

    assert everything() == before
    retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    assert everything() == before
    shown_ids, said_ids = archived(tmp_path / "out")
    # Each row is in one archive or in the store, never in two.
    assert sorted(shown_ids + in_store(store, exposures)) == before[0]
    assert sorted(said_ids + in_store(store, outcomes)) == before[1]
    assert store.counts() == {"exposures": 30, "outcomes": 20}
    assert not list((tmp_path / "out").glob("*.moving"))


def test_a_gateway_that_writes_meanwhile_never_waits_long(store, url, tmp_path):
    for start in range(0, 24_000, 8_000):
        numbers = range(start, start + 8_000)
        store.write(
            [shown(number, created_at_us=number) for number in numbers],
            [said(number, created_at_us=number) for number in numbers],
        )
    done, waits = threading.Event(), []
    gateway = ExperimentStore(url)

    def write():
        number = 1_000_000
        while not done.is_set():
            began = time.perf_counter()
            gateway.write([shown(number, created_at_us=NOW)], [said(number, created_at_us=NOW)])
            waits.append(time.perf_counter() - began)
            number += 1
            time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        (archive,) = retain(url, tmp_path / "out", older_than_days=30, now_us=NOW)
    finally:
        done.set()
        writer.join(30)
        gateway.close()
    assert (archive.exposures, archive.outcomes) == (24_000, 24_000)
    assert store.counts() == {"exposures": len(waits), "outcomes": len(waits)}
    assert len(waits) > 30
    # Far below the ten seconds after which SQLite gives up, on whatever machine this runs.
    assert np.quantile(waits, 0.5) < 0.5
    assert max(waits) < 3.0


def test_two_runs_do_not_meet_in_one_folder(store, url, tmp_path):
    store.write([shown(1)])
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ExperimentError, match="another run is at work"):
            retain(url, out, older_than_days=1)
    assert len(retain(url, out, older_than_days=1)) == 1


def test_what_is_no_folder_of_archives_is_refused(store, url, tmp_path):
    store.write([shown(1)])
    export(url, tmp_path / "one")
    with pytest.raises(ExperimentError, match="is one archive"):
        retain(url, tmp_path / "one", older_than_days=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="cannot keep archives"):
        retain(url, tmp_path / "file", older_than_days=1)
    strange = tmp_path / "out" / "mine.moving"
    strange.mkdir(parents=True)
    (strange / "notes.txt").write_text("mine")
    with pytest.raises(ExperimentError, match="not empty"):
        retain(url, tmp_path / "out", older_than_days=1)
    assert (strange / "notes.txt").exists()
    assert store.counts()["exposures"] == 1


def test_nothing_is_removed_that_cannot_be_read_back(store, url, tmp_path, monkeypatch):
    store.write([shown(1), shown(2)], [said(1)])
    ids = retention._event_ids
    monkeypatch.setattr(retention, "_event_ids", lambda path: (one[1:] for one in ids(path)))
    with pytest.raises(ExperimentError, match=r"1 event ids of 2 exposures"):
        retain(url, tmp_path / "out", older_than_days=1)
    monkeypatch.undo()
    (moving,) = (tmp_path / "out").glob("*.moving")
    path = moving / "exposures.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ExperimentError, match="altered or cut short"):
        retain(url, tmp_path / "out", older_than_days=1)
    assert store.counts() == {"exposures": 2, "outcomes": 1}
    path.write_bytes(whole)
    assert len(retain(url, tmp_path / "out", older_than_days=1)) == 1
    assert store.counts() == {"exposures": 0, "outcomes": 0}


@pytest.mark.parametrize("days", [0, -1, float("nan"), float("inf"), 1e9])
def test_days_that_mean_nothing_are_refused(url, tmp_path, days):
    with pytest.raises(ExperimentError, match="older_than_days"):
        retain(url, tmp_path / "out", older_than_days=days)


@pytest.mark.parametrize("now_us", [1 << 70, -(1 << 62)])
def test_a_clock_beyond_the_calendar_is_refused(url, tmp_path, now_us):
    with pytest.raises(ExperimentError, match="now_us="):
        retain(url, tmp_path / "out", older_than_days=1, now_us=now_us)
