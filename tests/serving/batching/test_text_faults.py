"""What goes wrong with one text: it fails alone, and the others have their answers."""

import asyncio

import numpy as np

from data.errors import EngineError


def test_one_poisonous_text_fails_alone(running, fake, counting, crowd):
    def on_run(ids):
        if (ids == crowd.poison).any():
            raise RuntimeError("a token without an embedding")

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            answers = await runner.answer(crowd.poisoned())
            crowd.assert_only_the_poison_failed(answers)
            assert "a token without an embedding" in str(answers[20])
            assert runner.reasons() == []
        assert {each.reason for each in counting.of("retried")} == {"error"}

    asyncio.run(body())


def test_a_value_that_is_not_finite_is_its_texts_own(running, fake, counting, crowd):
    def on_run(ids):
        sums = ids.sum(axis=1, dtype=np.float32)
        return {"sum": np.where((ids == crowd.poison).any(axis=1), np.nan, sums).astype(np.float32)}

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            answers = await runner.answer(crowd.poisoned())
        crowd.assert_only_the_poison_failed(answers)
        assert "NaN" in str(answers[20])
        assert [each.reason for each in counting.of("retried")] == ["not_finite"]

    asyncio.run(body())


def test_a_nan_that_came_from_a_batch_mate_goes_away_alone(running, fake, crowd):
    def on_run(ids):
        sums = ids.sum(axis=1, dtype=np.float32)
        return {"sum": np.full_like(sums, np.nan) if len(ids) > 1 else sums}

    async def body():
        fake.on_run = on_run
        async with running() as runner:
            assert await runner.answer(crowd.texts) == crowd.sums

    asyncio.run(body())


def test_a_tokenizer_that_raises_on_one_text(running, fake, crowd):
    def on_windows(texts):
        if any(text == str(crowd.poison) for text in texts):
            raise ValueError("a character out of range")

    async def body():
        fake.on_windows = on_windows
        async with running() as runner:
            answers = await runner.answer(crowd.poisoned())
            crowd.assert_only_the_poison_failed(answers)
            assert "the tokenizer failed on this text: ValueError" in str(answers[20])

    asyncio.run(body())


def test_a_thread_that_is_told_to_end_does_not_end_the_loop(running, fake, crowd):
    def on_windows(texts):
        if any(text == str(crowd.poison) for text in texts):
            raise SystemExit(3)

    async def body():
        fake.on_windows = on_windows
        async with running() as runner:
            crowd.assert_only_the_poison_failed(await runner.answer(crowd.poisoned()))

    asyncio.run(body())


def test_a_decoder_that_fails_on_one_text(running, fake, crowd):
    def answers(outputs, windows):
        if (outputs["sum"] == crowd.poison + 3).any():
            raise EngineError("an answer outside the contract")
        return outputs["sum"].tolist()

    async def body():
        fake.answers = answers
        async with running() as runner:
            crowd.assert_only_the_poison_failed(await runner.answer(crowd.poisoned()))

    asyncio.run(body())
