"""Whole answers compared."""

from collections.abc import Sequence

import pytest

from data.answers import decoding_schema
from data.examples import read_examples
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.summaries import ANSWER_TOKENS
from training.answer_parity import ask, compare_answers, field_score, first_unanswered


class Recorder:
    """Keeps what it is asked, and answers one word."""

    name = "recorder"

    def __init__(self):
        self.asked: list[ChatRequest] = []

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        self.asked += requests
        return [ChatAnswer("word", "stop", 3, 1) for _ in requests]


def said(*texts):
    return [ChatAnswer(text, "stop", 3, 1) for text in texts]


@pytest.fixture(scope="module")
def examples(language_targets):
    return read_examples(language_targets / "test.jsonl")[:4]


def test_it_asks_as_serving_does(examples):
    engine = Recorder()
    assert [each.text for each in ask(engine, examples)] == ["word"] * len(examples)
    for example, request in zip(examples, engine.asked, strict=True):
        assert list(request.messages) == example.messages
        assert request.schema == decoding_schema("labels", example.numbered)
        assert (request.temperature, request.max_tokens) == (0.0, ANSWER_TOKENS["labels"])


def test_who_did_not_answer_is_named(examples):
    answers = said("a", "b", "c", "d")
    assert first_unanswered(Recorder(), examples, answers) is None
    answers[2] = ChatAnswer("", "error", error="no room")
    found = first_unanswered(Recorder(), examples, answers)
    assert found == f"recorder did not answer {examples[2].about!r} (labels): 'no room'"


def test_agreement_and_score_are_counted(examples):
    gold = [each.answer for each in examples]
    other = [*gold[:3], gold[3].replace("absent", "mixed")]
    found = compare_answers(examples, said(*gold), said(*other))
    assert (found.agreement, found.agreement_by_task) == (0.75, {"labels": 0.75})
    assert found.score_before == 1.0
    assert found.score_after == pytest.approx(1 - 1 / 5 / 4)  # one field of five, once in four
    at = gold[3].index("absent")
    assert found.first_difference is not None
    assert found.first_difference.startswith(f"{examples[3].about!r} (labels) from character {at}")


def test_an_answer_that_was_cut_differs_at_its_end(examples):
    gold = examples[0].answer
    found = compare_answers(examples[:1], said(gold), said(gold[:-1]))
    assert found.first_difference is not None
    assert f"from character {len(gold) - 1} on: '}}' became ''" in found.first_difference


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_object_scores_nothing(examples, text):
    assert field_score(examples[0], said(text)[0]) == 0.0
