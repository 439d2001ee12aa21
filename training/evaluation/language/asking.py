"""Asks a model what is to be judged: every example, under its schema and free, and restaurants.

At temperature 0 an answer still depends on what stands in the same batch (vllm#5898), so each
repeat asks in another order, and what differs is reported.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from data.answers import decoding_schema
from data.contract import Review
from data.errors import EngineError
from data.examples import Example
from data.prompts import Task
from serving.engines.chat import ChatAnswer, ChatEngine, ChatRequest
from serving.summaries import ANSWER_TOKENS
from training.evaluation.language.gold import Gold
from training.evaluation.language.restaurants import RestaurantAnswer
from training.evaluation.language.tally import Said

Summarise = Callable[[ChatEngine, Sequence[Review]], Awaitable[RestaurantAnswer]]
"""What serving does with a restaurant's reviews."""


async def ask_model(
    engine: ChatEngine,
    gold: Gold,
    *,
    repeats: int,
    name: str,
    free: int,
    answer_tokens: Mapping[Task, int],
    seed: int,
    summarise: Summarise | None,
) -> Said:
    """Ask one model everything.

    Args:
        engine: the model.
        gold: what is asked.
        repeats: how often examples are asked at temperature 0; restaurants, whose steps ask the
            same kinds of prompt and take longest, are asked once.
        name: as progress lines call it.
        free: how many examples are asked once without a schema too, the tasks in turn.
        answer_tokens: the most an answer to an example may take, by task.
        seed: of the order in which repeats ask.
        summarise: serving's way from reviews to a summary; None leaves restaurants out.

    Raises:
        EngineError: the engine answered nothing, or not each prompt once.
    """
    shuffled = random.Random(seed)  # noqa: S311  # an order, not a secret
    constrained, restaurants = [], []
    for repeat in range(repeats):
        order = list(range(len(gold.examples)))
        if repeat:
            shuffled.shuffle(order)
        with _told(name, f"{len(order)} examples, time {repeat + 1} of {repeats}"):
            constrained.append(
                await ask_examples(engine, gold.examples, answer_tokens=answer_tokens, order=order)
            )
        if repeat == 0 and summarise is not None and gold.restaurants:
            with _told(name, f"{len(gold.restaurants)} restaurants"):
                # At once, as a server has them: vLLM batches what waits together.
                asked = [summarise(engine, each.reviews) for each in gold.restaurants]
                restaurants.append(await asyncio.gather(*asked))
    unheld: list[ChatAnswer | None] | None = None
    if free:
        places = in_turn(gold.examples, free)
        unheld = [None] * len(gold.examples)
        with _told(name, f"{len(places)} examples without a schema"):
            chosen = [gold.examples[place] for place in places]
            said = await ask_examples(engine, chosen, answer_tokens=answer_tokens, schema=False)
        for place, answer in zip(places, said, strict=True):
            unheld[place] = answer
    return Said(constrained, unheld, restaurants)


def in_turn(examples: Sequence[Example], most: int) -> list[int]:
    """Indices of the first examples of every task, the tasks taken in turn.

    Args:
        examples: of any tasks.
        most: how many at most.
    """
    of_task: Counter[Task] = Counter()
    ranked = []
    for place, example in enumerate(examples):
        ranked.append((of_task[example.task], place))
        of_task[example.task] += 1
    return sorted(place for _, place in sorted(ranked)[:most])


@contextmanager
def _told(name: str, what: str) -> Iterator[None]:
    """A line when it begins and one when it is done: this is what an evaluation takes long for."""
    started = time.perf_counter()
    print(f"{name}: asking {what}", flush=True)
    yield
    print(f"{name}: {what} in {time.perf_counter() - started:.1f} s", flush=True)


async def ask_examples(
    engine: ChatEngine,
    examples: Sequence[Example],
    *,
    answer_tokens: Mapping[Task, int] = ANSWER_TOKENS,
    schema: bool = True,
    order: Sequence[int] | None = None,
) -> list[ChatAnswer]:
    """One answer per example, in the order of the examples.

    Args:
        engine: the model.
        examples: the prompts.
        answer_tokens: the most an answer may take, by task.
        schema: decode under each example's JSON Schema.
        order: in which they are asked.

    Raises:
        EngineError: the engine answered nothing, or not each prompt once.
    """
    places = list(range(len(examples))) if order is None else order
    # Making a schema takes 5 ms, and prompts with as many lines share theirs.
    kinds = {(example.task, example.numbered) for example in examples} if schema else set()
    schemas = {kind: decoding_schema(*kind) for kind in kinds}
    requests = [
        ChatRequest(
            messages=example.messages,
            schema=schemas.get((example.task, example.numbered)),
            max_tokens=answer_tokens[example.task],
        )
        for example in (examples[place] for place in places)
    ]
    answers = await engine.complete(requests)
    if len(answers) != len(requests):
        raise EngineError(
            f"engine {engine.name!r} gave {len(answers)} answers to {len(requests)} prompts; it "
            "must answer each once, in order"
        )
    reasons = {answer.error for answer in answers}
    if None not in reasons:
        raise EngineError(
            f"engine {engine.name!r} answered none of {len(requests)} prompts, for instance: "
            f"{min(map(str, reasons))!r}; mend it, there is nothing to evaluate"
        )
    by_place = dict(zip(places, answers, strict=True))
    return [by_place[place] for place in range(len(examples))]
