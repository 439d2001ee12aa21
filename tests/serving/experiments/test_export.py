import errno
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime

import orjson
import pyarrow.parquet as pq
import pytest

from data.errors import ExperimentError
from data.manifest import read_manifest
from serving.experiments import archive_files
from serving.experiments import export as exporting
from serving.experiments.archive_files import ARCHIVE_KIND, EXPOSURES, OUTCOMES, read_archive
from serving.experiments.database import open_database
from serving.experiments.export import export
from serving.experiments.store import Exposure, Feedback, exposure_event_id
from serving.experiments.tables import exposures, outcomes

DAY = 86_400_000_000


def shown(number, **changes):
    given = {
        "request_id": f"request-{number}",
        "item": number % 2,
        "experiment_id": "e",
        "deployment_id": "d" * 32,
        "unit": f"{number:064x}",
        "arm": "champion",
        "model_version": "sentiment/1",
        "text_sha256": f"{number:062x}ff",
        "prediction": orjson.dumps({"sentiment": {"label": "positive"}, "글": "맛"}),
        "latency_ms": 1.5,
        "created_at_us": number * DAY,
    }
    return Exposure(**(given | changes))


def said(number, **changes):
    given = {"request_id": f"request-{number}", "item": number % 2, "created_at_us": number * DAY}
    return Feedback(**(given | {"sentiment": "positive"} | changes))


def test_every_row_comes_out_as_it_went_in(store, url, tmp_path):
    store.write([shown(number) for number in range(1, 8)])
    clicks = [
        said(3, sentiment=None, reward=0.25, event_id="주문-1"),
        said(3, sentiment=None, reward=0.5, event_id="0123456789ABCDEF" * 2),
    ]
    store.write([], [said(1), said(2, sentiment="negative"), *clicks])
    archive = export(url, tmp_path / "out")
    assert (archive.exposures, archive.outcomes, archive.orphans) == (7, 4, 0)

    table = pq.read_table(archive.folder / "exposures.parquet")
    assert table.schema.equals(EXPOSURES)
    third = table.to_pylist()[2]
    assert third == {
        "event_id": bytes.fromhex(exposure_event_id("request-3", 1)),
        "request_id": "request-3",
        "item": 1,
        "experiment_id": "e",
        "deployment_id": "d" * 32,
        "unit": (3).to_bytes(32, "big"),
        "arm": "champion",
        "model_version": "sentiment/1",
        "text_sha256": bytes.fromhex(f"{3:062x}ff"),
        "prediction": '{"sentiment":{"label":"positive"},"글":"맛"}',
        "latency_ms": 1.5,
        "created_at": datetime(1970, 1, 4, tzinfo=UTC),
        "why": "assigned",
        "status": "ok",
        "cost": None,
    }
    table = pq.read_table(archive.folder / "outcomes.parquet")
    assert table.schema.equals(OUTCOMES)
    rows = {row["event_key"] or row["event_id"].hex(): row for row in table.to_pylist()}
    assert set(rows) == {
        said(1).key(),
        said(2, sentiment="negative").key(),
        "주문-1",
        "0123456789ABCDEF" * 2,
    }
    assert rows["주문-1"] == {
        "event_id": None,
        "event_key": "주문-1",
        "exposure_event_id": third["event_id"],
        "request_id": "request-3",
        "item": 1,
        "metric": "reward",
        "reward": 0.25,
        "label": None,
        "created_at": datetime(1970, 1, 4, tzinfo=UTC),
        "orphan": False,
    }
    assert rows[said(1).key()]["label"] == '{"sentiment":"positive"}'
    assert rows[said(1).key()]["event_key"] is None


def test_files_are_compressed_and_few_values_are_dictionaries(store, url, tmp_path):
    store.write([shown(number) for number in range(1, 100)])
    export(url, tmp_path / "out")
    group = pq.ParquetFile(tmp_path / "out" / "exposures.parquet").metadata.row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(12))}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    coded = {name for name, column in columns.items() if column.has_dictionary_page}
    assert coded == {"item", "experiment_id", "deployment_id", "arm", "model_version"}


def test_the_manifest_says_how_much_and_from_when_to_when(store, url, tmp_path):
    store.write([shown(number) for number in range(1, 8)], [])
    store.write([], [said(number) for number in range(1, 8)])
    export(url, tmp_path / "out", before_us=5 * DAY)
    manifest = read_manifest(tmp_path / "out", ARCHIVE_KIND)
    assert manifest.facts == {
        "rows": {"exposures": 4, "outcomes": 4, "orphans": 0},
        "from": "1970-01-02T00:00:00.000000Z",
        "to": "1970-01-05T00:00:00.000000Z",
        "before": "1970-01-06T00:00:00.000000Z",
        "experiment_id": None,
        "last_exposure_us": 4 * DAY,
        "last_outcome_us": 4 * DAY,
    }
    assert set(manifest.files) == {"exposures.parquet", "outcomes.parquet"}


def test_outcomes_go_with_their_exposures_and_orphans_by_their_own_age(store, url, tmp_path):
    store.write([shown(1), shown(2), shown(6), shown(7, experiment_id="other")])
    late = 30 * DAY
    store.write([], [said(1, created_at_us=late), said(6, created_at_us=DAY), said(7), said(2)])
    with store._engine.begin() as connection:
        connection.execute(exposures.delete().where(exposures.c.request_id.in_(["request-2"])))
    parts = export(url, tmp_path / "old", before_us=3 * DAY)
    assert (parts.exposures, parts.outcomes, parts.orphans) == (1, 2, 1)
    rows = pq.read_table(tmp_path / "old" / "outcomes.parquet").to_pylist()
    orphan = next(row for row in rows if row["orphan"])
    assert orphan["exposure_event_id"].hex() == exposure_event_id("request-2", 0)
    assert export(url, tmp_path / "older", before_us=2 * DAY).orphans == 0
    named = export(url, tmp_path / "named", experiment_id="e")
    assert (named.exposures, named.outcomes, named.orphans) == (2, 2, 0)
    assert export(url, tmp_path / "all").outcomes == store.counts()["outcomes"] == 4


@pytest.mark.usefixtures("store")
def test_an_empty_store_makes_an_empty_archive(url, tmp_path):
    archive = export(url, tmp_path / "deep" / "out")
    assert (archive.exposures, archive.outcomes, archive.last_exposure_us) == (0, 0, None)
    assert read_archive(archive.folder) == archive
    assert pq.read_table(archive.folder / "outcomes.parquet").schema.equals(OUTCOMES)


def test_batches_and_progress(store, url, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 10)
    store.write([shown(number) for number in range(1, 26)])
    store.write([], [said(number) for number in range(1, 12)])
    told = []
    archive = export(url, tmp_path / "out", on_rows=lambda what, rows: told.append((what, rows)))
    assert told == [("exposures", n) for n in (10, 20, 25)] + [("outcomes", n) for n in (10, 11)]
    assert pq.ParquetFile(archive.folder / "exposures.parquet").metadata.num_row_groups == 3


def test_what_is_written_meanwhile_is_not_half_in_it(store, url, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_BATCH_ROWS", 10)
    store.write([shown(number) for number in range(1, 31)])

    def write_more(what, rows):
        more = [shown(100 + rows + number) for number in range(5)]
        store.write(more, [said(rows)] + [said(100 + rows + number) for number in range(5)])

    archive = export(url, tmp_path / "out", on_rows=write_more)
    assert (archive.exposures, archive.outcomes) == (30, 0)
    assert store.counts() == {"exposures": 45, "outcomes": 18}


def test_a_folder_that_is_taken_is_left_as_it_is(store, url, tmp_path):
    store.write([shown(1)])
    archive = export(url, tmp_path / "out")
    before = (archive.folder / "manifest.json").read_bytes()
    with pytest.raises(ExperimentError, match="already"):
        export(url, tmp_path / "out")
    assert (archive.folder / "manifest.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ExperimentError, match=r"'notes.txt', which is no part"):
        export(url, tmp_path / "mine")
    with pytest.raises(ExperimentError, match="cannot make the folder"):
        export(url, tmp_path / "mine" / "notes.txt")


def test_what_was_cut_short_is_written_anew(store, url, tmp_path):
    store.write([shown(1)])
    out = tmp_path / "out"
    out.mkdir()
    (out / "exposures.parquet").write_bytes(b"of another time")
    (out / ".outcomes.parquet.12.tmp").write_bytes(b"half")
    assert export(url, out).exposures == 1
    assert sorted(path.name for path in out.iterdir()) == [
        "exposures.parquet",
        "manifest.json",
        "outcomes.parquet",
    ]


FULL_DISK = """
import resource, sys
from pathlib import Path
from data.errors import ExperimentError
from serving.experiments.export import export

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    export(sys.argv[1], Path(sys.argv[2]))
except ExperimentError as error:
    sys.exit(f"ExperimentError: {error}")
"""


def test_a_full_disk_leaves_no_file_and_can_be_tried_again(store, url, tmp_path):
    rows = [shown(n, text_sha256=os.urandom(32).hex()) for n in range(1, 3_000)]
    store.write(rows)
    store.close()  # the last connection's end takes the log in; it would meet the limit below
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, url, str(tmp_path / "out"), "60000"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert os.strerror(errno.EFBIG) in process.stderr
    assert process.stderr.startswith("ExperimentError: cannot write")
    assert list((tmp_path / "out").iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert export(url, tmp_path / "out").exposures == len(rows)


def test_a_manifest_that_cannot_be_written_seals_nothing(store, url, tmp_path, monkeypatch):
    store.write([shown(1)])

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(archive_files, "write_manifest", refuse)
        with pytest.raises(ExperimentError, match="No space left"):
            export(url, tmp_path / "out")
    with pytest.raises(ExperimentError, match="no whole archive"):
        read_archive(tmp_path / "out")
    assert export(url, tmp_path / "out").exposures == 1


@pytest.mark.parametrize(
    ("column", "value"), [("unit", "김철수 010-1234"), ("unit", ""), ("text_sha256", "F" * 64)]
)
def test_a_row_without_a_hash_is_named_but_not_shown(store, url, tmp_path, column, value):
    store.write([shown(1), shown(2)])
    with store._engine.begin() as connection:
        row = exposures.c.request_id == "request-2"
        connection.execute(exposures.update().where(row).values({column: value}))
    with pytest.raises(ExperimentError, match=rf"exposures\.{column} 1 of 2") as refused:
        export(url, tmp_path / "out")
    assert not value or value not in str(refused.value)
    assert exposure_event_id("request-2", 0) in str(refused.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_stores_that_cannot_be_read_are_named_without_passwords(tmp_path):
    with pytest.raises(ExperimentError, match="there is no store"):
        export(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "out")
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(ExperimentError, match="none that SQLAlchemy reads"):
        export("no address", tmp_path / "out")
    with pytest.raises(ExperimentError, match="keeps nothing"):
        export("sqlite://", tmp_path / "out")
    (tmp_path / "broken.db").write_text("not a database at all, though long enough to be read" * 99)
    with pytest.raises(ExperimentError, match="not a database"):
        export(f"sqlite:///{tmp_path / 'broken.db'}", tmp_path / "out")
    with pytest.raises(ExperimentError, match="cannot open") as refused:
        export("postgresql://user:secret@127.0.0.1:1/none", tmp_path / "out")
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("before_us", [1 << 63, -(1 << 64)])
def test_a_time_that_no_store_can_hold_is_refused(url, tmp_path, before_us):
    with pytest.raises(ExperimentError, match="is no time"):
        export(url, tmp_path / "out", before_us=before_us)


def test_folders_are_on_disk_before_anything_depends_on_them(store, url, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(archive_files, "sync_folder", synced.append)
    export(url, tmp_path / "new" / "out")
    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "out"} <= set(synced)
    assert synced[-1] == tmp_path / "new" / "out"


def test_an_archive_that_was_altered_is_refused(store, url, tmp_path):
    store.write([shown(1)])
    archive = export(url, tmp_path / "out")
    assert read_archive(archive.folder) == archive
    path = archive.folder / "outcomes.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ExperimentError, match="altered or cut short"):
        read_archive(archive.folder)


def test_a_table_that_goes_away_is_an_error_that_leaves_nothing(store, url, tmp_path):
    store.write([shown(1)])
    engine = open_database(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE outcomes RENAME COLUMN reward TO value")
    engine.dispose()
    with pytest.raises(ExperimentError, match=r"cannot export from .*no such column"):
        export(url, tmp_path / "out")
    assert outcomes.c.reward is not None
    assert not list((tmp_path / "out").glob("*outcomes*"))
