import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from data.errors import DeadlineError, EngineError, OverloadError
from serving.analyzer import load_analyzer
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.memory import HostMemory
from serving.batching.observer import SilentObserver
from serving.batching.runner import BatchRunner
from serving.batching.settings import BatchSettings
from serving.logits import Logits
from serving.windows import merge_outputs


def text_of(*numbers):
    return " ".join(map(str, numbers))


def sums(texts):
    return [3.0 + sum(map(int, text.split())) for text in texts]


def test_answers_come_in_the_texts_order(running):
    async def body():
        async with running() as runner:
            texts = [text_of(*[n] * (n % 60)) for n in range(500)]
            assert await runner.answer(texts) == sums(texts)
            assert await runner.answer([]) == []
            assert await runner.answer([""]) == [3.0]

    asyncio.run(body())


def test_many_callers_share_batches_and_each_has_its_own(running, fake):
    async def body():
        async with running() as runner:
            calls = [[text_of(*[n] * (n % 9 + 1))] for n in range(300)]
            answers = await asyncio.gather(*map(runner.answer, calls))
            assert answers == [sums(texts) for texts in calls]
        assert len(fake.shapes) < 200

    asyncio.run(body())


def test_windows_of_a_long_text_meet_again_from_different_batches(running, fake):
    async def body():
        numbers = list(range(1, 2001))
        long = text_of(*numbers)
        async with running(max_batch_tokens=256, min_batch_tokens=256) as runner:
            [answer, short] = await runner.answer([long, text_of(7)])
        windows = fake.windows([long])
        expected = sum(
            sum(ids) * float(weight)
            for ids, weight in zip(windows.ids, windows.weights, strict=True)
        )
        assert len(windows.ids) > 30
        assert answer == pytest.approx(expected, rel=1e-5)
        assert short == 10.0
        assert len(fake.shapes) > 5

    asyncio.run(body())


def test_a_hundred_thousand_characters_are_read_whole(tiny_models):
    async def body():
        analyzer = load_analyzer(tiny_models["champion"])
        admission = Admission(HostMemory())
        runner = BatchRunner(analyzer, name="real", admission=admission, costs=CostModel.unfitted())
        await runner.start()
        text = "맛있어요 별로 " * 12_500
        assert len(text) == 100_000
        [long, short] = await runner.answer([text, "친절"])
        await runner.drain(10)
        expected = analyzer.analyze([text, "친절"])
        assert long.windows == expected[0].windows > 500
        assert short.sentiment == expected[1].sentiment

    asyncio.run(body())


def test_a_claim_of_independence_holds(tiny_models):
    """ONNX Runtime fp32 says batch_invariant: whoever shares the batch changes nothing."""

    async def body():
        analyzer = load_analyzer(tiny_models["champion"])
        assert analyzer.engine.batch_invariant
        model = SimpleNamespace(
            engine=analyzer.engine,
            pad_id=analyzer.pad_id,
            windows=analyzer.windows,
            answers=lambda outputs, windows: list(Logits(**merge_outputs(outputs, windows)).flat()),
        )
        counting = SilentObserver()
        rows = []
        counting.batch_done = lambda **done: rows.append(done["rows"])
        runner = BatchRunner(
            model,
            name="real",
            admission=Admission(HostMemory()),
            costs=CostModel.unfitted(),
            observer=counting,
        )
        await runner.start()
        texts = ["맛있어요 " * n + "별로" for n in range(9)]
        alone = [(await runner.answer([text]))[0] for text in texts]
        assert set(rows) == {1}
        among = await runner.answer([text for text in texts for _ in range(20)])
        await runner.drain(10)
        assert max(rows) > 5
        np.testing.assert_allclose(among, np.repeat(alone, 20, axis=0), atol=2e-6)

    asyncio.run(body())


def test_a_huge_request_does_not_stand_before_a_small_one(running, fake):
    async def body():
        async with running(workers=1, max_batch_tokens=64, min_batch_tokens=64) as runner:
            huge = asyncio.create_task(runner.answer([text_of(*[1] * 30)] * 1000))
            while len(fake.shapes) < 5:
                await asyncio.sleep(0.001)
            before = len(fake.shapes)
            assert await runner.answer([text_of(4, 5)]) == [12.0]
            between = len(fake.shapes) - before
            assert not huge.done()
            assert between < 100
            assert await huge == [33.0] * 1000

    asyncio.run(body())


def test_a_caller_that_hangs_up_frees_its_place(running, fake, gate):
    async def body():
        fake.on_run = gate
        async with running(workers=1, prefetch=0, max_queue_texts=10) as runner:
            first = asyncio.create_task(runner.answer([text_of(1)]))
            await asyncio.to_thread(gate.come.wait, 20)
            others = asyncio.create_task(runner.answer([text_of(2)] * 9))
            await asyncio.sleep(0.05)
            with pytest.raises(OverloadError):
                await runner.answer([text_of(3)])
            others.cancel()
            with pytest.raises(asyncio.CancelledError):
                await others
            third = asyncio.create_task(runner.answer([text_of(3)] * 9))
            await asyncio.sleep(0.05)
            gate.open.set()
            assert await first == [4.0]
            assert await third == [6.0] * 9
        assert fake.tokens == 3 + 9 * 3  # nothing of the second was computed

    asyncio.run(body())


def test_the_time_is_up(running, fake, gate, counting):
    async def body():
        fake.on_run = gate
        async with running(workers=1) as runner:
            with pytest.raises(DeadlineError, match=r"1 of 1 texts had no answer after 0\.1 s"):
                await runner.answer([text_of(1)], timeout_s=0.1)
            gate.open.set()
            assert await runner.answer([text_of(2)], timeout_s=20) == [5.0]
        assert [each.reason for each in counting.of("rejected")] == ["deadline"]

    asyncio.run(body())


def test_what_cannot_be_in_time_is_refused_at_once(running, fake, gate, counting):
    async def body():
        fake.on_run = gate
        async with running(workers=1) as runner:
            waiting = asyncio.create_task(runner.answer([text_of(*[1] * 50)] * 1000))
            await asyncio.to_thread(gate.come.wait, 20)
            with pytest.raises(OverloadError, match="would take about") as refused:
                await runner.answer([text_of(1)], timeout_s=1e-3)
            assert refused.value.retry_after_s > 0
            gate.open.set()
            await waiting
        assert [each.reason for each in counting.of("rejected")] == ["too_late"]

    asyncio.run(body())


def test_what_an_idle_runner_cannot_do_in_time_is_not_begun(running, fake, counting):
    async def body():
        texts = [text_of(*[1] * 50)] * 4_000
        async with running(workers=1) as runner:
            with pytest.raises(OverloadError, match="send fewer texts") as refused:
                await runner.answer(texts, timeout_s=0.02)
            assert refused.value.retry_after_s > 0
            assert fake.shapes == []
            # A pace that was slow of late is no reason: nothing would ever mend it.
            runner._costs.pace = 100.0
            assert runner._dispatcher.queued_s(4_000 * 50) > 15
            assert await runner.answer(texts, timeout_s=10) == sums(texts)
        assert [each.reason for each in counting.of("rejected")] == ["too_late"]

    asyncio.run(body())


def test_costs_that_are_a_guess_refuse_nothing_to_an_idle_runner(fake, plenty):
    async def body():
        runner = BatchRunner(
            fake, name="test", admission=Admission(plenty), costs=CostModel.unfitted()
        )
        await runner.start()
        texts = [text_of(*[1] * 50)] * 500
        assert runner._dispatcher.queued_s(500 * 50) > 5
        assert await runner.answer(texts, timeout_s=5) == sums(texts)
        await runner.drain(10)

    asyncio.run(body())


def test_five_times_too_much_is_refused_and_the_rest_answered_in_time(running, fake, counting):
    async def body():
        fake.on_run = lambda ids: time.sleep(0.004)
        async with running(
            workers=2, max_queue_texts=64, max_batch_tokens=64, min_batch_tokens=64
        ) as runner:
            refused = 0
            answered = []

            async def call(number):
                nonlocal refused
                try:
                    answered.append((number, await runner.answer([text_of(number, *[1] * 28)])))
                except OverloadError as error:
                    refused += error.retry_after_s > 0

            calls = []
            for number in range(2500):
                calls.append(asyncio.create_task(call(number)))
                if number % 5 == 4:
                    await asyncio.sleep(0.001)
            await asyncio.gather(*calls)
            assert refused + len(answered) == 2500
            assert refused > 500
            assert len(answered) > 200
            assert all(answer == [3.0 + 28 + number] for number, answer in answered)
            assert runner.reasons() == []

    asyncio.run(body())


def test_another_model_takes_over_while_the_old_one_answers_what_it_has(running, fake, gate):
    async def body():
        fake.on_run = gate
        async with running() as old:
            open_ones = asyncio.create_task(old.answer([text_of(*[1] * n) for n in range(40)]))
            await asyncio.to_thread(gate.come.wait, 20)
            draining = asyncio.create_task(old.drain(20))
            await asyncio.sleep(0)
            with pytest.raises(OverloadError, match="is closing"):
                await old.answer([text_of(1)])
            assert "draining" in old.reasons()
            async with running(type(fake)()) as new:
                assert await new.answer([text_of(1)]) == [4.0]
                gate.open.set()
                assert await open_ones == [3.0 + n for n in range(40)]
                await draining

    asyncio.run(body())


def test_what_drains_too_long_is_answered_with_a_refusal(running, fake, gate):
    async def body():
        fake.on_run = gate
        async with running() as runner:
            hanging = asyncio.create_task(runner.answer([text_of(1)]))
            await asyncio.to_thread(gate.come.wait, 20)
            await runner.drain(0.1)
            with pytest.raises(OverloadError):
                await hanging
            gate.open.set()

    asyncio.run(body())


def test_costs_of_another_kind_of_engine_are_refused(fake, plenty):
    with pytest.raises(EngineError, match="calibrate this engine"):
        BatchRunner(
            fake,
            name="x",
            admission=Admission(plenty),
            costs=CostModel.unfitted(computes_padding=False),
            settings=BatchSettings(),
        )


def test_padding_is_small_under_load(running, counting):
    async def body():
        random = np.random.default_rng(3)
        lengths = np.clip(random.lognormal(3.4, 0.7, 3000), 3, 60).astype(int)
        async with running(max_batch_tokens=512, min_batch_tokens=512) as runner:
            await runner.answer([text_of(*[1] * int(n)) for n in lengths])
        done = counting.of("batch_done")
        ratio = sum(each.padded_tokens for each in done) / sum(each.tokens for each in done)
        assert ratio <= 1.05

    asyncio.run(body())


def test_many_windows_go_by_length_where_padding_is_left_out(fake, plenty, gate):
    mixed: list[float] = []
    lengths = np.random.default_rng(3).integers(3, 60, 400)
    read: list[str] = []

    def on_run(ids):
        gate(ids)
        mixed.append(len(set((ids != 0).sum(1).tolist())) / len(ids))

    async def body():
        runner = BatchRunner(
            fake,
            name="test",
            admission=Admission(plenty),
            costs=CostModel.unfitted(computes_padding=False),
            settings=BatchSettings(max_batch_tokens=512, min_batch_tokens=512, max_batch_ms=1e4),
        )
        await runner.start()
        waits = asyncio.create_task(runner.answer([text_of(*[1] * int(n)) for n in lengths]))
        while len(read) < len(lengths):
            await asyncio.sleep(0.01)
        gate.open.set()
        await asyncio.wait_for(waits, 60)
        await runner.drain(20)

    fake.computes_padding, fake.on_run, fake.on_windows = False, on_run, read.extend
    asyncio.run(body())
    # By turn, nine of ten windows of a batch are of a length of their own.
    assert np.median(mixed) < 0.5
