"""Lessons in clauses: every clause asks for its aspect and polarity at its own number."""

import pytest

from data.contract import ASPECTS, POLARITIES
from data.prompts import Point
from training.clause_reading import CLAUSES, reading_lessons
from training.language_tokenizer import train_language_tokenizer


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return [
        Point(f"r{number}", f"말 #{number} 이다", aspect, polarity)
        for number, (aspect, polarity) in enumerate(
            (aspect, polarity) for aspect in ASPECTS for polarity in POLARITIES
        )
    ]


def test_each_number_is_asked_for_its_clauses_aspect_and_polarity(points):
    words = ["#1 #2 #10 말 이다", "#".join((*ASPECTS, *POLARITIES))] * 9
    tokenizer = train_language_tokenizer(words, vocabulary=600)
    lessons = reading_lessons(tokenizer, points)
    assert len(lessons) == -(-len(points) // CLAUSES)
    found = []
    for lesson in lessons:
        numbers = []
        for (place, first), (again, second) in zip(
            lesson.asked[::2], lesson.asked[1::2], strict=True
        ):
            assert place == again
            said = tokenizer.decode(lesson.input_ids[: place + 1])
            numbers.append(said.rsplit("#", 1)[1])
            found.append((tokenizer.decode([first]), tokenizer.decode([second])))
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert sorted(found) == sorted((each.aspect, each.polarity) for each in points)


def test_there_may_be_none(points):
    assert reading_lessons(train_language_tokenizer(["말"], vocabulary=300), []) == []
