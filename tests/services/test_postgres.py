"""The experiment store on PostgreSQL, where processes and the server are killed.

What both databases have in common is in tests/serving/test_store.py, which runs on this server too.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import psycopg
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.allocation import Allocation, ArmShare, Holdout, Layer, Namespace
from serving.experiments.archive_files import EXPOSURES_FILE
from serving.experiments.archive_units import units_of_archive
from serving.experiments.assignment import REASONS, assign, unit_hash
from serving.experiments.assignment_sql import assignment_sql
from serving.experiments.buckets import BucketRange
from serving.experiments.export import export
from serving.experiments.retention import retain
from serving.experiments.store import ExperimentStore, Exposure, Feedback
from serving.experiments.tables import exposures, outcomes
from serving.experiments.writer import StoreWriter

pytestmark = pytest.mark.services

WRITER = """
import itertools, sys
import orjson
from serving.experiments.store import ExperimentStore, Exposure, Feedback
from serving.experiments.writer import StoreWriter

url, name = sys.argv[1:]
writer = StoreWriter(ExperimentStore(url), max_waiting=1000)
prediction = orjson.dumps({"sentiment": {"label": "positive"}})
for number in itertools.count():
    request = f"{name}-{number}"
    exposure = Exposure(
        request, 0, "e", "d", f"{number:064x}", "champion", "sentiment/1", "0" * 64, prediction,
        1.0, number,
    )
    said = writer.submit([exposure], [Feedback(request, 0, number, sentiment="positive")])
    assert said.result(30) == ["stored"]
    print(request, flush=True)
"""


def shown(number: int, unit: str | None = None) -> Exposure:
    return Exposure(
        request_id=f"request-{number}",
        item=0,
        experiment_id="e",
        deployment_id="d",
        unit=unit or f"{number:064x}",
        arm="champion",
        model_version="sentiment/1",
        text_sha256="0" * 64,
        prediction=orjson.dumps({"sentiment": {"label": "positive"}}),
        latency_ms=1.0,
        created_at_us=number,
    )


@pytest.fixture
def url(postgres_url: str) -> str:
    # The tables are made once, so that the processes below have only rows to write.
    ExperimentStore(postgres_url).close()
    return postgres_url


def stored(url: str, table: sa.Table) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(str(sa.select(table.c.request_id)).encode()).fetchall()
    return {row[0] for row in rows}


def start_writer(url: str, name: str, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-c", WRITER, url, name], stdout=output)


def acknowledged(log: Path) -> list[str]:
    """Whole lines only: the last may have been cut by the kill."""
    return log.read_text(encoding="utf-8").split("\n")[:-1]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert process.poll() is None, "the writer ended by itself"


def test_killed_writers_lose_nothing_that_they_acknowledged(url: str, tmp_path: Path) -> None:
    logs = [tmp_path / f"writer-{number}.log" for number in range(3)]
    writers = [start_writer(url, log.stem, log) for log in logs]
    try:
        for writer, log in zip(writers, logs, strict=True):
            wait_for(lambda log=log: len(acknowledged(log)) >= 50, writer)
    finally:
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
    said = {request for log in logs for request in acknowledged(log)}
    assert len(said) >= 150
    assert said <= stored(url, exposures)
    assert said <= stored(url, outcomes)
    # A writer commits an exposure with its outcome: half of one is never there.
    assert stored(url, exposures) == stored(url, outcomes)


def test_a_crashed_server_loses_nothing_and_the_writer_goes_on(
    url: str, crash_postgres: Callable[[], None]
) -> None:
    store = ExperimentStore(url)
    writer = StoreWriter(store, max_waiting=1000)
    for number in range(50):
        assert writer.submit([shown(number)]).result(30) == []
    crash_postgres()
    # The connections of before are dead: writing again needs no new gateway.
    assert writer.submit([shown(50)], [Feedback("request-50", 0, 1, reward=1.0)]).result(30) == [
        "stored"
    ]
    writer.close(30)
    store.close()
    assert stored(url, exposures) == {f"request-{number}" for number in range(51)}


def test_plain_sql_finds_the_arm_that_python_finds(url: str) -> None:
    units = [unit_hash("salt-2026", f"account-{number}") for number in range(3_000)]
    store = ExperimentStore(url)
    store.write([shown(number, unit) for number, unit in enumerate(units)])
    store.write([shown(10_000 + number, unit) for number, unit in enumerate(units[:50])])
    store.close()
    arms = (ArmShare("champion", 0.2), ArmShare("it's 100% :b", 0.3), ArmShare("도전자", 0.5))
    owned = (BucketRange(0, 3_000), BucketRange(4_000, 9_999))
    plain = Allocation(experiment_id="e", seed="실험 🍜 'x' -- %s :y", arms=arms)
    full = Allocation(
        experiment_id="e",
        seed="e",
        arms=arms,
        coverage=0.7,
        layer=Layer("layer", (Namespace("e", owned),)),
        holdout=Holdout("held out", 0.1),
        overrides={units[3]: "도전자"},
    )
    for allocation, reasons in ((plain, {"assigned"}), (full, set(REASONS))):
        sql = assignment_sql(allocation, "postgresql", deployment_id="d")
        with psycopg.connect(url) as connection:
            rows = connection.execute(sql.encode()).fetchall()
            beside = connection.execute(
                f"SELECT count(*) FROM exposures JOIN ({sql}) AS dealt "  # noqa: S608
                "ON dealt.unit = exposures.unit "
                "WHERE exposures.arm IS DISTINCT FROM dealt.arm".encode()
            ).fetchone()
        said = {unit: assign(allocation, unit) for unit in units}
        assert {row[0]: row[1:] for row in rows} == {
            unit: (one.bucket, one.arm, one.why) for unit, one in said.items()
        }
        assert len(rows) == len(units)
        assert {row[3] for row in rows} == reasons
        shown_to = [*units, *units[:50]]
        assert beside == (sum(said[unit].arm != "champion" for unit in shown_to),)


def test_what_is_old_moves_to_parquet_beside_a_gateway_that_writes(
    url: str, tmp_path: Path
) -> None:
    store = ExperimentStore(url)
    rows = [shown(number) for number in range(5_000)]
    said = [Feedback(row.request_id, 0, 100 + n, reward=n % 8 / 8) for n, row in enumerate(rows)]
    store.write(rows, said)
    store.write([], [Feedback("request-7", 0, 7, event_id="주문-7", sentiment="negative")])
    expected = store.exposures_with_outcomes("e", "d")
    copy = export(url, tmp_path / "copy")
    assert (copy.exposures, copy.outcomes, copy.orphans) == (5_000, 5_001, 0)

    log = tmp_path / "writer.log"
    writer = start_writer(url, "beside", log)
    try:
        wait_for(lambda: len(acknowledged(log)) >= 20, writer)
        # The writer's answers have small times too: its last ones may come after the export.
        first = retain(url, tmp_path / "out", older_than_days=1)
        so_far = len(acknowledged(log))
        wait_for(lambda: len(acknowledged(log)) >= so_far + 20, writer)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert stored(url, exposures) == stored(url, outcomes) > set()
    last = retain(url, tmp_path / "out", older_than_days=1)
    assert store.counts() == {"exposures": 0, "outcomes": 0}
    moved = {
        row["request_id"]
        for archive in (*first, *last)
        for row in pq.read_table(
            archive.folder / EXPOSURES_FILE, columns=["request_id"]
        ).to_pylist()
    }
    assert moved >= {row.request_id for row in rows} | set(acknowledged(log))
    assert sum(archive.orphans for archive in (*first, *last)) == 0
    assert sum(archive.exposures for archive in (*first, *last)) == len(moved)
    store.close()

    found = units_of_archive(tmp_path / "copy", "e", "d")
    assert found.unit.tolist() == expected.unit.tolist()
    assert found.versions == expected.versions
    for name in ("arm", "reward", "exposures", "outcomes", "labelled", "failed"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_a_database_that_is_not_there_is_named_without_its_password(url: str) -> None:
    absent = url.rpartition("/")[0].replace("matjip@", "matjip:secret@") + "/nowhere"
    with pytest.raises(ExperimentError, match='"nowhere" does not exist') as refused:
        ExperimentStore(absent)
    assert "secret" not in str(refused.value)
