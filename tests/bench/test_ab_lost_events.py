from collections import Counter
from dataclasses import replace

import pytest

from bench import ab_lost_events
from bench.ab_events import events
from bench.ab_lost_events import WORLD, lost, measure, stored, write
from bench.ab_traffic import draw
from data.errors import ExperimentError
from serving.experiments.store import ExperimentStore, Exposure, Feedback

SMALL = replace(WORLD, units=30)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small world's events, and the address of a store."""
    monkeypatch.setattr(ab_lost_events, "WORLD", SMALL)
    return events(draw(SMALL, 9), 9), f"sqlite:///{tmp_path / 'store.db'}"


def test_events_come_out_of_order_twice_corrected_and_before_their_exposure():
    stream = events(draw(WORLD, 9), 9)
    times = [one.event.created_at_us for one in stream]
    assert times != sorted(times)
    sent = Counter((one.table, one.event_id) for one in stream)
    assert set(sent.values()) == {1, 2}
    assert any(event_id.startswith("first-") for _, event_id in sent)
    shown, early = set(), 0
    for one in stream:
        if isinstance(one.event, Exposure):
            shown.add(one.event.request_id)
        elif isinstance(one.event, Feedback) and one.event.request_id not in shown:
            early += 1
    assert early > 20


def test_a_writer_commits_every_event_once_whatever_the_order(small):
    stream, url = small
    committed = []
    write(url, range(len(stream)), committed.extend)
    assert sorted(committed) == list(range(len(stream)))
    assert lost(url, stream) == 0
    held = stored(url)
    distinct = {(one.table, one.event_id) for one in stream}
    assert sum(map(len, held.values())) == len(distinct)
    write(url, range(len(stream)), committed.extend)
    assert stored(url).keys() == held.keys()
    assert sum(map(len, stored(url).values())) == len(distinct)


def test_what_the_store_lacks_is_counted_once(small):
    stream, url = small
    shown = [one.event for one in stream if isinstance(one.event, Exposure)]
    store = ExperimentStore(url)
    store.write(shown[1:])
    store.close()
    exposures = [one for one in stream if one.table == "exposures"]
    lacking = {one.event.request_id for one in exposures} - {one.request_id for one in shown[1:]}
    assert lost(url, exposures) == len(lacking)
    assert lost(url, stream) == len(lacking) + len(
        {one.event_id for one in stream if one.table == "outcomes"}
    )


def test_outcomes_without_any_exposure_are_told(small):
    stream, url = small
    orphans = [number for number, one in enumerate(stream) if one.table == "outcomes"]
    committed = []
    with pytest.raises(ExperimentError, match="have no exposure"):
        write(url, orphans, committed.extend)
    assert committed == []


def test_a_writer_that_dies_by_itself_is_told(small):
    stream, _ = small
    with pytest.raises(RuntimeError, match="ended with status 1"):
        ab_lost_events.send_and_kill("sqlite://", stream, 0)


def test_nothing_is_lost_by_sigkill(monkeypatch, tmp_path):
    monkeypatch.setattr(ab_lost_events, "HOME", tmp_path)
    said = []
    figure = measure(said.append, kills=2)["events_lost"]
    assert (figure.value, figure.bar) == (0.0, "0")
    assert figure.met
    assert "killed by SIGKILL 2 times" in figure.conditions
    assert "are those of the traffic" in figure.conditions
    assert list(tmp_path.iterdir()) == []
