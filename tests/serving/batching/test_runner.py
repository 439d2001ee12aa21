import asyncio

from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.runner import BatchRunner
from serving.batching.settings import BatchSettings


def test_answers_come_in_the_texts_order(fake, plenty):
    async def body():
        runner = BatchRunner(
            fake, name="fake", admission=Admission(plenty), costs=CostModel.unfitted()
        )
        await runner.start()
        texts = [" ".join(["5"] * (n % 37)) for n in range(500)]
        answers = await runner.answer(texts)
        assert answers == [3 + 5 * (n % 37) for n in range(500)]
        assert await runner.answer([]) == []
        await runner.drain(5)

    asyncio.run(body())
