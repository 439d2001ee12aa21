"""What runs out of memory, or of readings of it: no answer is lost, and batches fit again."""

import asyncio

from data.errors import EngineError, EngineMemoryError
from serving.batching.admission import Admission
from serving.batching.memory import MemoryReading
from serving.batching.settings import AdmissionSettings


def test_out_of_memory_halves_the_batch_and_all_are_answered(running, fake, counting, crowd):
    def on_run(ids):
        if ids.size > 64:
            raise EngineMemoryError("no room for the scores")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            assert await runner.answer(crowd.texts) == crowd.sums
            fake.shapes.clear()
            tried = len(counting.of("out_of_memory"))
            assert tried > 0
            assert await runner.answer(crowd.texts) == crowd.sums
            # What failed is a cap by now: the second time hardly anything is tried that large.
            assert len(counting.of("out_of_memory")) - tried <= 1
            assert runner.reasons() == []
        assert {each.reason for each in counting.of("retried")} == {"memory"}

    asyncio.run(body())


def test_steady_load_at_a_limit_that_lasts_does_not_run_into_it_again(
    running, fake, counting, crowd
):
    texts = [" ".join([text] * 20) for text in crowd.texts * 20]

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


def test_one_text_that_never_fits_fails_alone(running, fake, crowd):
    def on_run(ids):
        if (ids == crowd.poison).any():
            raise EngineMemoryError("never")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            answers = await runner.answer(crowd.poisoned())
            crowd.assert_only_the_poison_failed(answers)
            assert isinstance(answers[20], EngineMemoryError)

    asyncio.run(body())


def test_texts_that_never_fit_leave_the_others_batches_as_large_as_they_were(
    running, fake, counting, crowd
):
    def on_run(ids):
        if (ids == crowd.poison).any():
            raise EngineMemoryError("never")

    async def body():
        fake.on_run = on_run
        async with running(workers=2, min_batch_tokens=512) as runner:
            assert await runner.answer(crowd.texts) == crowd.sums
            at_once = max(rows for rows, _ in fake.shapes)
            askings = [runner.answer(texts) for texts in [crowd.poisoned(), crowd.texts] * 10]
            for answers in await asyncio.gather(*askings):
                assert sum(isinstance(answer, EngineMemoryError) for answer in answers) <= 1
            assert len(counting.of("out_of_memory")) >= 10 * 3  # alone, each three times
            assert runner._costs.cap_bytes is None
            fake.shapes.clear()
            assert await runner.answer(crowd.texts) == crowd.sums
            assert max(rows for rows, _ in fake.shapes) == at_once

    asyncio.run(body())


def test_a_limit_is_found_out_though_a_text_that_never_fits_is_among_the_first(
    running, fake, counting, crowd
):
    def on_run(ids):
        if ids.size > 64 or (ids == crowd.poison).any():
            raise EngineMemoryError("no room for the scores")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            crowd.assert_only_the_poison_failed(await runner.answer(crowd.poisoned()))
            assert runner._costs.cap_bytes is not None
            assert (
                await runner.answer(crowd.texts) == crowd.sums
            )  # both workers may still run into it at once
            tried = len(counting.of("out_of_memory"))
            assert await runner.answer(crowd.texts) == crowd.sums
            assert len(counting.of("out_of_memory")) - tried <= 1

    asyncio.run(body())


def test_memory_that_is_gone_is_a_reason_and_what_waits_is_answered_when_it_is_back(
    running, becomes, crowd
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
            waiting = asyncio.create_task(runner.answer(crowd.texts))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            free = 8 * 2**30
            assert await waiting == crowd.sums
            assert await becomes(lambda: runner.reasons() == []) < 10

    asyncio.run(body())


def test_memory_that_cannot_be_read_loses_no_answer_and_is_a_reason_when_it_goes_on(
    running, becomes, monkeypatch, caplog, crowd
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
                assert await runner.answer(crowd.texts, timeout_s=10) == crowd.sums
            assert runner.reasons() == []
            broken = "always"
            assert await runner.answer(crowd.texts, timeout_s=10) == crowd.sums
            caplog.clear()
            assert await becomes(lambda: runner.reasons() != []) < 2
            assert "OSError: NVML: unknown error" in runner.reasons()[0]
            assert await runner.answer(crowd.texts, timeout_s=10) == crowd.sums
            assert len(caplog.records) <= 1  # not once a reading
            broken = ""
            assert await becomes(lambda: runner.reasons() == []) < 2
        assert admission.state().in_flight == 0

    asyncio.run(body())
