"""What was acknowledged before the store had it: nothing of it is lost when its process ends."""

import os
import signal
import subprocess
import sys

import orjson
import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.journal import Journal
from serving.experiments.store import ExperimentStore, Exposure

WRITER = """
import itertools, sys
from pathlib import Path
import orjson
from serving.experiments.journal import Journal
from serving.experiments.store import Exposure

journal = Journal(Path(sys.argv[1]), segment_bytes=4000)
for number in itertools.count():
    request = f"visit-{number}"
    journal.append([Exposure(request, 0, "e", "d", f"{number:064x}", "champion", "sentiment/1",
                             "0" * 64, orjson.dumps({"말": "맛있어요"}), 1.0, number)])
    print(request, flush=True)
"""


def shown(number, text="0"):
    return Exposure(
        f"visit-{number}",
        0,
        "e",
        "d",
        f"{number:064x}",
        "champion",
        "sentiment/1",
        text * 64,
        orjson.dumps({"감성": "긍정 🍜"}),
        1.5,
        number,
        why="override",
        status="ok",
        cost=2.5,
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def store(tmp_path):
    opened = ExperimentStore(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def test_what_the_store_has_leaves_the_journal(folder):
    journal = Journal(folder, segment_bytes=1_000)
    settled = [journal.append([shown(number)]) for number in range(8)]
    assert len(list(folder.iterdir())) > 1
    for segment in settled:
        journal.settle(segment, committed=True)
    assert len(list(folder.iterdir())) == 1
    journal.close()
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_acknowledged_comes_to_the_store(folder, store, tmp_path):
    log = tmp_path / "said"
    with log.open("wb") as output:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=output)
    try:
        while len(log.read_text().split("\n")) < 60:
            assert writer.poll() is None
        journal = Journal(folder)
        # A living process's own are left to it.
        assert journal.recover(store.write) == 0
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    acknowledged = log.read_text().split("\n")[:-1]
    assert journal.recover(store.write) >= len(acknowledged)
    assert journal.recover(store.write) == 0
    journal.close()
    assert list(folder.iterdir()) == []
    with store._engine.connect() as connection:
        kept = set(connection.execute(sa.text("SELECT request_id FROM exposures")).scalars())
    assert set(acknowledged) <= kept


def test_every_field_comes_back_and_twice_is_once(folder, store):
    lost = Journal(folder)
    for _ in range(2):
        lost.append([shown(1), shown(2)])
    lost.close()
    seen = []
    Journal(folder).recover(seen.append)
    assert seen == [[shown(1), shown(2)]] * 2
    for one in seen:
        store.write(one)
    assert store.counts()["exposures"] == 2


def test_a_line_cut_short_was_nobodys_and_an_altered_one_is_left_out(folder, caplog):
    lost = Journal(folder)
    for number in range(3):
        lost.append([shown(number)])
    lost.close()
    (path,) = folder.iterdir()
    first, second, third, _ = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([first, second.replace(b"champion", b"champioN"), third[:40]]))
    seen = []
    Journal(folder).recover(seen.append)
    assert seen == [[shown(0)]]
    assert "altered" in caplog.text
    assert "middle of a line" in caplog.text


def test_a_store_that_refuses_leaves_the_lines_for_the_next_time(folder, store):
    def refuse(_shown):
        raise sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full"))

    Journal(folder).close()
    lost = Journal(folder)
    lost.append([shown(1)])
    lost.close()
    journal = Journal(folder)
    segment = journal.append([shown(2)])
    journal.settle(segment, committed=False)
    assert journal.has_refused
    with pytest.raises(sa.exc.OperationalError):
        journal.recover(refuse)
    assert journal.recover(store.write) == 2
    assert not journal.has_refused
    assert store.counts()["exposures"] == 2


def test_a_request_id_that_serves_twice_keeps_its_first_answer(folder, store, caplog):
    store.write([shown(1)])
    lost = Journal(folder)
    lost.append([shown(1, text="f")])
    lost.append([shown(2)])
    lost.close()
    assert Journal(folder).recover(store.write) == 2
    assert "visit-1" in caplog.text
    assert store.counts()["exposures"] == 2


def test_a_full_disk_acknowledges_nothing(folder, monkeypatch):
    journal = Journal(folder)
    journal.append([shown(1)])
    (path,) = folder.iterdir()
    before, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))
    with pytest.raises(ExperimentError, match=r"disk is full.*make room"):
        journal.append([shown(2)])
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="MATJIP_JOURNAL_FOLDER"):
        Journal(tmp_path / "file")
