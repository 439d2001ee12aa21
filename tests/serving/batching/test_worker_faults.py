"""Threads that end or hang in a batch: no answer is lost, and none is given twice."""

import asyncio
import ctypes
import sys
import threading

import pytest

from data.errors import EngineError
from serving.batching.admission import Admission


def end_thread_in_python(ids):
    raise SystemExit(3)


def end_thread_in_c(ids):
    ctypes.CDLL(None).pthread_exit(None)


ENDINGS = [end_thread_in_python]
if sys.platform == "linux":
    ENDINGS.append(end_thread_in_c)


@pytest.mark.parametrize("end", ENDINGS)
def test_a_dead_worker_is_replaced_and_its_batch_answered_once(running, fake, counting, end, crowd):
    once = threading.Lock()

    def on_run(ids):
        if (ids > 99).any() and once.acquire(blocking=False):
            end(ids)

    async def body():
        fake.on_run = on_run
        async with running(workers=2) as runner:
            assert await runner.answer(crowd.texts) == crowd.sums
            assert await runner.answer(crowd.texts) == crowd.sums
            assert runner.reasons() == []
        assert len(counting.of("worker_died")) == 1
        assert [each.reason for each in counting.of("retried")] == ["worker_died"]

    asyncio.run(body())


def test_a_text_that_ends_every_thread_fails_alone(running, fake, crowd):
    def on_run(ids):
        if (ids == crowd.poison).any():
            raise SystemExit(3)

    async def body():
        fake.on_run = on_run
        async with running(workers=2, watch_interval_s=0.02) as runner:
            answers = await runner.answer(crowd.poisoned())
            crowd.assert_only_the_poison_failed(answers)
            assert "the worker thread was lost" in str(answers[20])

    asyncio.run(body())


def test_a_worker_that_hangs_is_given_up_and_its_late_answer_ignored(
    running, fake, gate, counting, crowd
):
    first = threading.Lock()

    def on_run(ids):
        if first.acquire(blocking=False):
            gate(ids)

    async def body():
        fake.on_run = on_run
        async with running(workers=1, stuck_s=0.3) as runner:
            assert await runner.answer(crowd.texts) == crowd.sums
            gate.open.set()
            assert await runner.answer(crowd.texts) == crowd.sums
        assert len(counting.of("worker_died")) == 1

    asyncio.run(body())


def test_workers_that_hang_in_a_drain_keep_no_room_from_the_next(
    running, fake, gate, plenty, crowd
):
    async def body():
        admission = Admission(plenty)
        fake.on_run = gate
        for _ in range(2):
            async with running(admission=admission) as runner:
                asking = asyncio.create_task(runner.answer(["1"]))
                assert await asyncio.to_thread(gate.come.wait, 10)
                gate.come.clear()
                await runner.drain(0.05)
                with pytest.raises(EngineError, match="closing"):
                    await asking
        assert admission.state().in_flight == 0
        fake.on_run = lambda ids: None
        async with running(admission=admission) as runner:
            assert await runner.answer(["1"], timeout_s=5) == [4.0]
            gate.open.set()  # the late ones are of batches that nobody knows any more
            assert await runner.answer(crowd.texts, timeout_s=5) == crowd.sums
        assert admission.state().in_flight == 0

    try:
        asyncio.run(body())
    finally:
        gate.open.set()
