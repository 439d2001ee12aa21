"""New rows are read once each, whoever's clock is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from serving.experiments.metric_feed import MetricFeed
from serving.experiments.store import ExperimentStore, Exposure
from serving.experiments.tables import exposures
from serving.experiments.tail import Tail

SECOND = 1_000_000
NOW = 1_000 * SECOND


def asked(number: int, at_us: int) -> Exposure:
    return Exposure(
        request_id=f"국밥-{number}",
        item=0,
        experiment_id="e",
        deployment_id="d",
        unit=f"{number:064x}",
        arm="float",
        model_version="m/1",
        text_sha256="0" * 64,
        prediction=b"{}",
        latency_ms=1.0,
        created_at_us=at_us,
    )


class Reader:
    """A tail at a time of ours."""

    def __init__(self, store: ExperimentStore, **options: Any):
        self.engine, self.now_us = store._engine, NOW
        self.tail = Tail(exposures, now_us=lambda: self.now_us, **options)

    def read(self, most_rows: int = 1_000) -> tuple[set[str], bool]:
        columns = (exposures.c.event_id, exposures.c.created_at_us, exposures.c.request_id)
        with self.engine.connect() as connection:
            rows, behind = self.tail.read(connection, sa.select(*columns), most_rows=most_rows)
        found = [row.request_id for row in rows]
        assert len(set(found)) == len(found)
        return {name.partition("-")[2] for name in found}, behind


@pytest.fixture
def reader(store: ExperimentStore) -> Callable[..., Reader]:
    return lambda **options: Reader(store, **options)


def test_every_row_is_read_once(store: ExperimentStore, reader: Callable[..., Reader]) -> None:
    told = reader()
    store.write([asked(1, NOW - 500 * SECOND), asked(2, NOW)])
    assert told.read() == ({"1", "2"}, False)
    assert told.read() == (set(), False)
    store.write([asked(3, NOW), asked(4, NOW - 4 * SECOND)])
    assert told.read()[0] == {"3", "4"}
    assert told.read()[0] == set()


def test_a_gateway_whose_clock_is_behind_is_heard_some_looks_later(
    store: ExperimentStore, reader: Callable[..., Reader]
) -> None:
    told = reader()
    store.write([asked(1, NOW)])
    told.read()
    store.write([asked(2, NOW - 50 * SECOND)])
    heard = [told.read()[0] for _ in range(12)]
    assert heard.count({"2"}) == 1
    assert heard.count(set()) == 11


def test_a_row_from_the_future_hides_none_of_the_present(
    store: ExperimentStore, reader: Callable[..., Reader]
) -> None:
    told = reader()
    store.write([asked(1, NOW), asked(2, NOW + 3_600 * SECOND)])
    assert told.read()[0] == {"1", "2"}
    told.now_us += SECOND
    store.write([asked(3, NOW + SECOND)])
    assert told.read()[0] == {"3"}


@pytest.mark.parametrize("page_rows", [1, 7, 100])
def test_pages_lose_nothing_though_many_rows_have_one_time(
    store: ExperimentStore, reader: Callable[..., Reader], page_rows: int
) -> None:
    told = reader(page_rows=page_rows)
    store.write([asked(number, NOW - number // 20) for number in range(60)])
    found: set[str] = set()
    behind = True
    while behind:
        new, behind = told.read(most_rows=10)
        assert not new & found
        found |= new
    assert len(found) == 60


def test_what_is_known_does_not_grow_for_ever(
    store: ExperimentStore, reader: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.experiments.tail._KNOWN", 10)
    told = reader()
    for number in range(100):
        told.now_us = NOW + number * 60 * SECOND
        store.write([asked(number, told.now_us)])
        assert told.read()[0] == {str(number)}
    assert len(told.tail._known) < 30


def test_a_clock_that_is_set_back_starts_the_sums_anew(store: ExperimentStore) -> None:
    now = [NOW]
    feed = MetricFeed(
        store._engine,
        "d",
        arms=["float", "int8"],
        goals=[],
        attribution_days=7.0,
        clock=lambda: now[0],
    )
    store.write([asked(1, NOW)])
    feed.read(most_rows=100)
    now[0] -= 3_600 * SECOND
    store.write([asked(2, now[0])])
    feed.read(most_rows=100)
    assert feed.units.units() == {"float": 2, "int8": 0}
