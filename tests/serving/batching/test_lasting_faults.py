"""What fails for a while, the engine or a part of ours: it is a reason, and is mended by itself."""

import asyncio
import threading

import numpy as np

from data.errors import EngineError
from serving.batching.admission import Admission


def test_an_engine_of_nothing_but_nan_does_not_run_every_text_alone(running, fake, becomes, crowd):
    broken = threading.Event()

    def on_run(ids):
        return {"sum": np.full(len(ids), np.nan, np.float32)} if broken.is_set() else None

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            broken.set()
            await runner.answer(crowd.texts)
            await becomes(lambda: runner.reasons() != [])
            before = len(fake.shapes)
            answers = await runner.answer(crowd.texts)
            assert all("NaN" in str(answer) for answer in answers)
            assert len(fake.shapes) - before < 10
            broken.clear()
            assert await becomes(lambda: runner.reasons() == []) < 10
            assert await runner.answer(crowd.texts) == crowd.sums

    asyncio.run(body())


def test_an_engine_that_fails_on_everything_is_not_ready_until_it_recovers(
    running, fake, becomes, crowd
):
    broken = threading.Event()

    def on_run(ids):
        if broken.is_set():
            raise RuntimeError("the device fell off the bus")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            assert await runner.answer(["1"]) == [4.0]
            broken.set()
            answers = await runner.answer(["1", "2", "3"])
            assert all(isinstance(answer, EngineError) for answer in answers)
            assert await becomes(lambda: runner.reasons() != []) < 2
            assert "the device fell off the bus" in runner.reasons()[0]
            assert all(isinstance(each, EngineError) for each in await runner.answer(crowd.texts))
            broken.clear()
            assert await becomes(lambda: runner.reasons() == []) < 10
            assert await runner.answer(crowd.texts) == crowd.sums

    asyncio.run(body())


def test_an_observer_that_raises_loses_no_answer_and_no_room(running, counting, plenty):
    def broken(**what):
        raise ZeroDivisionError

    async def body():
        admission = Admission(plenty)
        counting.batch_done = broken
        async with running(admission=admission) as runner:
            for _ in range(4):
                assert await runner.answer(["1"], timeout_s=10) == [4.0]
        assert admission.state().in_flight == 0

    asyncio.run(body())


def test_a_scheduler_that_fails_by_a_bug_of_ours_is_a_reason_and_goes_on(running, becomes):
    async def body():
        async with running() as runner:

            def broken():
                raise ZeroDivisionError

            mended = runner._dispatcher._next
            runner._dispatcher._next = broken
            asking = asyncio.create_task(runner.answer(["1"], timeout_s=10))
            assert await becomes(lambda: runner.reasons() != []) < 2
            assert "dispatching fails: ZeroDivisionError()" in runner.reasons()
            runner._dispatcher._next = mended
            assert await asking == [4.0]
            assert await becomes(lambda: runner.reasons() == []) < 2

    asyncio.run(body())
