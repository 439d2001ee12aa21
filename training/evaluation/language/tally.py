"""What a contestant said, and the additive parts of it: one row per item and repeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data.answers import ANSWERS, Reading, read_answer
from data.examples import Example
from data.prompts import TASKS
from serving.engines.chat import ChatAnswer
from training.evaluation.language.counting import example_parts
from training.evaluation.language.form import Parts, as_measures, drift_parts, form_parts
from training.evaluation.language.gold import Gold
from training.evaluation.language.restaurants import (
    RestaurantAnswer,
    restaurant_parts,
    routing_parts,
)

ONCE: Final = ("raw_", "repaired_", "nll", "judged", "varied")
"""Measures whose names begin so are taken once, and stand with the first repeat."""


@dataclass(frozen=True)
class Said:
    """One contestant's words.

    Attributes:
        constrained: of each repeat, an answer per example; None where it does not answer the task.
        free: an answer per example, decoded without a schema; None where it was not asked.
        restaurants: of each repeat, an answer per restaurant; empty where it was not asked.
        restaurants_are: what its restaurants' answers are: reviews sorted, summaries, or both.
    """

    constrained: Sequence[Sequence[ChatAnswer | None]]
    free: Sequence[ChatAnswer | None] | None = None
    restaurants: Sequence[Sequence[RestaurantAnswer]] = ()
    restaurants_are: frozenset[str] = frozenset({"routing", "summary"})


@dataclass(frozen=True)
class Tally:
    """Parts of one contestant.

    Attributes:
        rows: of each repeat, the parts of every item.
        answered: what it was asked and answers, as ``Figure.needs`` names it.
    """

    rows: Sequence[Sequence[Parts]]
    answered: frozenset[str]

    def table(self, measure: str, parts: int, repeat: int | None = None) -> NDArray[np.float64]:
        """(items, parts) of a measure, the mean over the repeats; zero where it does not apply.

        Args:
            measure: its name.
            parts: how many parts it has.
            repeat: one repeat alone.
        """
        rows = self.rows if repeat is None else self.rows[repeat : repeat + 1]
        if measure.startswith(ONCE):
            rows = self.rows[:1]
        nothing = [0.0] * parts
        found: NDArray[np.float64] = np.asarray(
            [[item.get(measure, nothing) for item in row] for row in rows], dtype=np.float64
        )
        return np.asarray(found.mean(axis=0))


def tally_of(gold: Gold, said: Said) -> Tally:
    """Count everything that one contestant said."""
    repeats = max(len(said.constrained), len(said.restaurants))
    rows: list[list[Parts]] = [[{} for _ in gold.items] for _ in range(repeats)]
    for row, answers in zip(rows, said.constrained, strict=False):
        for parts, example, answer in zip(row, gold.examples, answers, strict=False):
            if answer is not None:
                parts.update(constrained_parts(example, answer))
    for parts, example, answer in zip(rows[0], gold.examples, said.free or (), strict=False):
        if answer is not None:
            parts.update(free_parts(example, answer))
    if len(said.constrained) > 1:
        for parts, answers in zip(rows[0], zip(*said.constrained, strict=True), strict=False):
            texts = {answer.text for answer in answers if answer is not None}
            parts["varied"] = [float(len(texts) > 1), 1.0]
    count = restaurant_parts if "summary" in said.restaurants_are else routing_parts
    for row, outcomes in zip(rows, said.restaurants, strict=False):
        places = row[len(gold.examples) :]
        for parts, restaurant, outcome in zip(places, gold.restaurants, outcomes, strict=True):
            parts.update(count(restaurant, outcome))
    return Tally(rows, _answered(gold, said))


def constrained_parts(example: Example, answer: ChatAnswer) -> Parts:
    """Form and content of an answer, mended where it had to be, as serving does."""
    reading = read(example, answer)
    return (
        form_parts(example.task, answer, reading, example.numbered)
        | drift_parts(answer.text, _prompt(example))
        | content_parts(example, reading.answer)
    )


def free_parts(example: Example, answer: ChatAnswer) -> Parts:
    """Form of an answer that no schema held; its score as it stood, and mended."""
    reading = read(example, answer)
    parts = form_parts(example.task, answer, reading, example.numbered)
    parts |= drift_parts(answer.text, _prompt(example))
    score = content_parts(example, reading.answer)["score"]
    return as_measures(parts, "raw") | {
        "raw_score": score if reading.obeyed else [0.0, 1.0],
        "repaired_score": score,
    }


def content_parts(example: Example, said: Any) -> Parts:
    """What an answer's fields say against the gold answer's."""
    gold = read_answer(_form(example), example.answer, example.numbered).answer
    return example_parts(example.task, example.aspect, gold, said)


def read(example: Example, answer: ChatAnswer) -> Reading[Any]:
    """Read an answer in its example's form."""
    return read_answer(_form(example), answer.text, example.numbered)


def _form(example: Example) -> Any:
    return ANSWERS[example.task]


def _prompt(example: Example) -> str:
    return example.messages[-1]["content"]


def _answered(gold: Gold, said: Said) -> frozenset[str]:
    first = said.constrained[0] if said.constrained else ()
    silent = {
        example.task
        for example, answer in zip(gold.examples, first, strict=False)
        if answer is None
    }
    tasks: set[str] = {task for task in TASKS if first and task in gold.tasks - silent}
    answered = tasks | ({"examples"} if tasks == gold.tasks else set())
    if said.free is not None:
        answered.add("free")
    if len(said.constrained) > 1:
        answered.add("repeats")
    if said.restaurants and gold.restaurants:
        answered |= said.restaurants_are
    return frozenset(answered)
