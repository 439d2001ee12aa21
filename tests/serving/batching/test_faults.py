"""What goes wrong on the way, each once: no answer is lost, and none is given twice."""

import asyncio
import ctypes
import sys
import threading

import numpy as np
import pytest

from data.errors import EngineError, EngineMemoryError
from serving.batching.admission import Admission
from serving.batching.memory import MemoryReading
from serving.batching.settings import AdmissionSettings

POISON = 666
TEXTS = [str(number) for number in range(100, 164)]
GOOD = [3.0 + number for number in range(100, 164)]


def poisoned(texts=TEXTS):
    return [*texts[:20], str(POISON), *texts[20:]]


def assert_only_the_poison_failed(answers):
    assert isinstance(answers[20], EngineError)
    assert [*answers[:20], *answers[21:]] == GOOD


def test_one_poisonous_text_fails_alone(running, fake, counting):
    def on_run(ids):
        if (ids == POISON).any():
            raise RuntimeError("a token without an embedding")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            answers = await runner.answer(poisoned())
            assert_only_the_poison_failed(answers)
            assert "a token without an embedding" in str(answers[20])
            assert runner.reasons() == []
        assert {each.reason for each in counting.of("retried")} == {"error"}

    asyncio.run(body())


def test_a_value_that_is_not_finite_is_its_texts_own(running, fake, counting):
    def on_run(ids):
        sums = ids.sum(axis=1, dtype=np.float32)
        return {"sum": np.where((ids == POISON).any(axis=1), np.nan, sums).astype(np.float32)}

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            answers = await runner.answer(poisoned())
        assert_only_the_poison_failed(answers)
        assert "NaN" in str(answers[20])
        assert [each.reason for each in counting.of("retried")] == ["not_finite"]

    asyncio.run(body())


def test_an_engine_of_nothing_but_nan_does_not_run_every_text_alone(running, fake, becomes):
    broken = threading.Event()

    def on_run(ids):
        return {"sum": np.full(len(ids), np.nan, np.float32)} if broken.is_set() else None

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            broken.set()
            await runner.answer(TEXTS)
            await becomes(lambda: runner.reasons() != [])
            before = len(fake.shapes)
            answers = await runner.answer(TEXTS)
            assert all("NaN" in str(answer) for answer in answers)
            assert len(fake.shapes) - before < 10
            broken.clear()
            assert await becomes(lambda: runner.reasons() == []) < 10
            assert await runner.answer(TEXTS) == GOOD

    asyncio.run(body())


def test_a_nan_that_came_from_a_batch_mate_goes_away_alone(running, fake):
    def on_run(ids):
        sums = ids.sum(axis=1, dtype=np.float32)
        return {"sum": np.full_like(sums, np.nan) if len(ids) > 1 else sums}

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            assert await runner.answer(TEXTS) == GOOD

    asyncio.run(body())


def test_a_tokenizer_that_raises_on_one_text(running, fake):
    def on_windows(texts):
        if any(text == str(POISON) for text in texts):
            raise ValueError("a character out of range")

    async def body():
        fake.on_windows = on_windows
        async with running() as runner:
            answers = await runner.answer(poisoned())
            assert_only_the_poison_failed(answers)
            assert "the tokenizer failed on this text: ValueError" in str(answers[20])

    asyncio.run(body())


def test_a_thread_that_is_told_to_end_does_not_end_the_loop(running, fake):
    def on_windows(texts):
        if any(text == str(POISON) for text in texts):
            raise SystemExit(3)

    async def body():
        fake.on_windows = on_windows
        async with running() as runner:
            assert_only_the_poison_failed(await runner.answer(poisoned()))

    asyncio.run(body())


def test_out_of_memory_halves_the_batch_and_all_are_answered(running, fake, counting):
    def on_run(ids):
        if ids.size > 64:
            raise EngineMemoryError("no room for the scores")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            assert await runner.answer(TEXTS) == GOOD
            fake.shapes.clear()
            tried = len(counting.of("out_of_memory"))
            assert tried > 0
            assert await runner.answer(TEXTS) == GOOD
            # What failed is a cap by now: the second time hardly anything is tried that large.
            assert len(counting.of("out_of_memory")) - tried <= 1
            assert runner.reasons() == []
        assert {each.reason for each in counting.of("retried")} == {"memory"}

    asyncio.run(body())


def test_steady_load_at_a_limit_that_lasts_does_not_run_into_it_again(running, fake, counting):
    texts = [" ".join([text] * 20) for text in TEXTS * 20]

    def on_run(ids):
        if ids.size > 1_000:
            raise EngineMemoryError("no room for the scores")

    async def body():
        fake.on_run = on_run
        failed = []
        async with running(min_batch_tokens=2_048) as runner:
            for _ in range(5):
                answers = await runner.answer(texts)
                assert not any(isinstance(answer, EngineError) for answer in answers)
                failed.append(len(counting.of("out_of_memory")))
        assert failed[0] > 0
        assert failed[1:] == [failed[1]] * 4

    asyncio.run(body())


def test_one_text_that_never_fits_fails_alone(running, fake):
    def on_run(ids):
        if (ids == POISON).any():
            raise EngineMemoryError("never")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            answers = await runner.answer(poisoned())
            assert_only_the_poison_failed(answers)
            assert isinstance(answers[20], EngineMemoryError)

    asyncio.run(body())


def end_thread_in_python(ids):
    raise SystemExit(3)


def end_thread_in_c(ids):
    ctypes.CDLL(None).pthread_exit(None)


ENDINGS = [end_thread_in_python]
if sys.platform == "linux":
    ENDINGS.append(end_thread_in_c)


@pytest.mark.parametrize("end", ENDINGS)
def test_a_dead_worker_is_replaced_and_its_batch_answered_once(running, fake, counting, end):
    once = threading.Lock()

    def on_run(ids):
        if (ids > 99).any() and once.acquire(blocking=False):
            end(ids)

    async def body():
        fake.on_run = on_run
        async with running(workers=2) as runner:
            assert await runner.answer(TEXTS) == GOOD
            assert await runner.answer(TEXTS) == GOOD
            assert runner.reasons() == []
        assert len(counting.of("worker_died")) == 1
        assert [each.reason for each in counting.of("retried")] == ["worker_died"]

    asyncio.run(body())


def test_a_text_that_ends_every_thread_fails_alone(running, fake):
    def on_run(ids):
        if (ids == POISON).any():
            raise SystemExit(3)

    async def body():
        fake.on_run = on_run
        async with running(workers=2, watch_interval_s=0.02) as runner:
            answers = await runner.answer(poisoned())
            assert_only_the_poison_failed(answers)
            assert "the worker thread was lost" in str(answers[20])

    asyncio.run(body())


def test_a_worker_that_hangs_is_given_up_and_its_late_answer_ignored(running, fake, gate, counting):
    first = threading.Lock()

    def on_run(ids):
        if first.acquire(blocking=False):
            gate(ids)

    async def body():
        fake.on_run = on_run
        async with running(workers=1, stuck_s=0.3) as runner:
            assert await runner.answer(TEXTS) == GOOD
            gate.open.set()
            assert await runner.answer(TEXTS) == GOOD
        assert len(counting.of("worker_died")) == 1

    asyncio.run(body())


def test_workers_that_hang_in_a_drain_keep_no_room_from_the_next(running, fake, gate, plenty):
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
            assert await runner.answer(TEXTS, timeout_s=5) == GOOD
        assert admission.state().in_flight == 0

    try:
        asyncio.run(body())
    finally:
        gate.open.set()


def test_an_engine_that_fails_on_everything_is_not_ready_until_it_recovers(running, fake, becomes):
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
            assert all(isinstance(each, EngineError) for each in await runner.answer(TEXTS))
            broken.clear()
            assert await becomes(lambda: runner.reasons() == []) < 10
            assert await runner.answer(TEXTS) == GOOD

    asyncio.run(body())


def test_memory_that_is_gone_is_a_reason_and_what_waits_is_answered_when_it_is_back(
    running, becomes
):
    free = 8 * 2**30

    async def body():
        nonlocal free
        admission = Admission(
            lambda: MemoryReading(free=free, own=2**30),
            settings=AdmissionSettings(read_interval_s=0.02, patience_s=30),
        )
        async with running(admission=admission) as runner:
            assert await runner.answer(["1"]) == [4.0]
            free = 0
            assert await becomes(lambda: runner.reasons() != []) < 2
            assert "memory is gone" in runner.reasons()[0]
            waiting = asyncio.create_task(runner.answer(TEXTS))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            free = 8 * 2**30
            assert await waiting == GOOD
            assert await becomes(lambda: runner.reasons() == []) < 10

    asyncio.run(body())


def test_memory_that_cannot_be_read_loses_no_answer_and_is_a_reason_when_it_goes_on(
    running, becomes, monkeypatch, caplog
):
    monkeypatch.setattr("serving.batching.admission._UNREAD_S", 0.2)
    reads, broken = 0, "now and then"

    def read():
        nonlocal reads
        reads += 1
        if broken == "always" or (broken and reads % 2 == 0):
            raise OSError("NVML: unknown error")
        return MemoryReading(free=8 * 2**30, own=2**30)

    async def body():
        nonlocal broken
        admission = Admission(read, settings=AdmissionSettings(read_interval_s=1e-6))
        async with running(admission=admission) as runner:
            for _ in range(5):
                assert await runner.answer(TEXTS, timeout_s=10) == GOOD
            assert runner.reasons() == []
            broken = "always"
            assert await runner.answer(TEXTS, timeout_s=10) == GOOD
            caplog.clear()
            assert await becomes(lambda: runner.reasons() != []) < 2
            assert "OSError: NVML: unknown error" in runner.reasons()[0]
            assert await runner.answer(TEXTS, timeout_s=10) == GOOD
            assert len(caplog.records) <= 1  # not once a reading
            broken = ""
            assert await becomes(lambda: runner.reasons() == []) < 2
        assert admission.state().in_flight == 0

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


def test_a_decoder_that_fails_on_one_text(running, fake):
    def answers(outputs, windows):
        if (outputs["sum"] == POISON + 3).any():
            raise EngineError("an answer outside the contract")
        return outputs["sum"].tolist()

    async def body():
        fake.answers = answers
        async with running() as runner:
            assert_only_the_poison_failed(await runner.answer(poisoned()))

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
