"""Work beside requests goes on, whatever happens to one turn of it."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from data.errors import ExperimentError
from serving.gateway.repeating import Repeated


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.005)


def test_a_turn_that_fails_is_a_warning_until_one_goes_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns: list[str] = []
    failing = threading.Event()
    failing.set()

    def work() -> bool:
        turns.append("turn")
        if failing.is_set():
            raise ExperimentError("the store is away; bring it back")
        return False

    async def day() -> None:
        repeated = Repeated(work, every_s=0.01, doing="guardrails")
        running = asyncio.create_task(repeated.run())
        await until(lambda: len(turns) > 3)
        assert repeated.warnings() == ["guardrails: the store is away; bring it back"]
        failing.clear()
        await until(lambda: not repeated.warnings())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await repeated.close()

    asyncio.run(day())
    assert [record.message for record in caplog.records] == [
        "guardrails: the store is away; bring it back"
    ]


def test_work_that_is_behind_goes_on_at_once() -> None:
    turns: list[str] = []

    def work() -> bool:
        turns.append("turn")
        return len(turns) % 100 != 1

    async def day() -> None:
        repeated = Repeated(work, every_s=0.01, doing="notices")
        running = asyncio.create_task(repeated.run())
        await until(lambda: len(turns) > 150)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await repeated.close()

    asyncio.run(day())


def test_closing_waits_for_the_turn_that_is_under_way() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        may_end.wait(20)
        ended.set()
        return False

    async def day() -> None:
        repeated = Repeated(work, every_s=0.001, doing="guardrails")
        running = asyncio.create_task(repeated.run())
        await until(begun.is_set)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        closing = asyncio.create_task(repeated.close())
        await asyncio.sleep(0.02)
        assert not closing.done()
        may_end.set()
        await closing
        assert ended.is_set()

    asyncio.run(day())
