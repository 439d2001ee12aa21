"""Whole answers of two engines compared: the plainest look at a link of the parity chain."""

import asyncio
from collections.abc import Sequence

import orjson
from pydantic import BaseModel, ConfigDict

from data.answers import decoding_schema
from data.examples import Example
from data.prompts import TASKS
from serving.engines.chat import ChatAnswer, ChatEngine, ChatRequest
from serving.summaries import ANSWER_TOKENS

_SHOWN = 24


class AnswerParity(BaseModel):
    """How two engines' greedy, constrained answers to the same prompts compare.

    Attributes:
        agreement: share of answers that are the same, character by character.
        agreement_by_task: the same, a task at a time; wording differs sooner than labels do.
        score_before: mean share of the gold answer's fields that the first engine has right.
        score_after: of the second.
        first_difference: which answer differs first, and where; None where none does.
    """

    model_config = ConfigDict(frozen=True)

    examples: int
    agreement: float
    agreement_by_task: dict[str, float]
    score_before: float
    score_after: float
    first_difference: str | None


def ask(
    engine: ChatEngine, examples: Sequence[Example], *, max_tokens: int | None = None
) -> list[ChatAnswer]:
    """Ask every example's prompt: greedily, held to its schema; ``max_tokens`` of an answer."""
    requests = [
        ChatRequest(
            messages=example.messages,
            schema=decoding_schema(example.task, example.numbered),
            max_tokens=min(ANSWER_TOKENS[example.task], max_tokens or ANSWER_TOKENS[example.task]),
        )
        for example in examples
    ]
    return asyncio.run(engine.complete(requests))


def first_unanswered(
    engine: ChatEngine, examples: Sequence[Example], answers: Sequence[ChatAnswer]
) -> str | None:
    """Which prompt an engine did not answer, and why; None where it answered all."""
    for example, answer in zip(examples, answers, strict=True):
        if answer.error is not None:
            return (
                f"{engine.name} did not answer {example.about!r} ({example.task}): {answer.error!r}"
            )
    return None


def compare_answers(
    examples: Sequence[Example], before: Sequence[ChatAnswer], after: Sequence[ChatAnswer]
) -> AnswerParity:
    """Compare two engines' answers to the same examples, at least one."""
    same = [one.text == other.text for one, other in zip(before, after, strict=True)]
    by_task = {
        task: [equal for example, equal in zip(examples, same, strict=True) if example.task == task]
        for task in TASKS
    }
    return AnswerParity(
        examples=len(examples),
        agreement=_mean(same),
        agreement_by_task={task: _mean(found) for task, found in by_task.items() if found},
        score_before=_mean([field_score(e, a) for e, a in zip(examples, before, strict=True)]),
        score_after=_mean([field_score(e, a) for e, a in zip(examples, after, strict=True)]),
        first_difference=next(
            (
                _difference(example, one.text, other.text)
                for example, one, other in zip(examples, before, after, strict=True)
                if one.text != other.text
            ),
            None,
        ),
    )


def field_score(example: Example, answer: ChatAnswer) -> float:
    """Share of the gold answer's fields that an answer has exactly; 0 for what is no object."""
    gold = orjson.loads(example.answer)
    try:
        said = orjson.loads(answer.text)
    except orjson.JSONDecodeError:
        return 0.0
    if not isinstance(said, dict):
        return 0.0
    return _mean([name in said and said[name] == value for name, value in gold.items()])


def _difference(example: Example, one: str, other: str) -> str:
    pairs = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    at = next((place for place, (a, b) in enumerate(pairs) if a != b), shorter)
    return (
        f"{example.about!r} ({example.task}) from character {at} on: "
        f"{one[at : at + _SHOWN]!r} became {other[at : at + _SHOWN]!r}"
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
