"""Decoding that obeys its schema: what is said, what is sampled, and when a row ends."""

import json
import runpy
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from data.answers import ANSWERS, decoding_schema, read_answer
from data.clauses import split_clauses
from data.prompts import Point, aspect_prompt
from serving.engines.chat import ChatRequest
from serving.engines.chat_transformers import TransformersChatEngine
from serving.engines.constrained import Row, RowsDone

CHAT = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("chat_requests.py"))))
REVIEWS, ask, free, answers = CHAT.REVIEWS, CHAT.ask, CHAT.free, CHAT.answers


def test_every_finished_answer_obeys_its_schema(engine: TransformersChatEngine) -> None:
    said = answers(engine, *(ask(review, max_tokens=700) for review in REVIEWS))
    assert [answer.finish_reason for answer in said] == ["stop"] * len(REVIEWS)
    for review, answer in zip(REVIEWS, said, strict=True):
        reading = read_answer(ANSWERS["labels"], answer.text, len(split_clauses(review)))
        assert reading.obeyed, answer.text
        # Compact, as training writes it, so that every token says something.
        value = json.loads(answer.text)
        assert answer.text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_what_is_cited_exists(engine: TransformersChatEngine) -> None:
    points = [Point(f"r{n}", "국물이 진해요", "food", "positive") for n in range(3)]
    [answer] = answers(
        engine,
        ChatRequest(
            aspect_prompt("food", points), schema=decoding_schema("aspect", 3), max_tokens=800
        ),
    )
    cited = [ref for b in json.loads(answer.text)["bullets"] for ref in b["evidence"]]
    assert cited
    assert set(cited) <= {"#1", "#2", "#3"}


def test_the_model_alone_would_say_no_json(engine: TransformersChatEngine) -> None:
    for answer in answers(engine, *(free(review) for review in REVIEWS)):
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.text)


def test_sampling_depends_on_its_seed_alone(engine: TransformersChatEngine) -> None:
    warm = free(REVIEWS[0], temperature=1.0, seed=7)
    other = free(REVIEWS[0], temperature=1.0, seed=8)
    greedy = free(REVIEWS[0])
    alone = answers(engine, warm)[0].text
    [first, second, third] = answers(engine, other, warm, greedy)
    assert second.text == alone
    assert len({first.text, second.text, third.text}) == 3
    unseeded = answers(engine, *[free(REVIEWS[0], temperature=1.5)] * 4)
    assert len({answer.text for answer in unseeded}) > 1


def test_samples_are_drawn_as_likely_as_the_model_says(engine: TransformersChatEngine) -> None:
    schema = {"enum": ["a", "b"]}
    drawn = answers(
        engine,
        *(free("ㅠㅠ", schema=schema, temperature=1.0, seed=seed) for seed in range(300)),
    )
    share = sum(answer.text == '"a"' for answer in drawn) / len(drawn)
    expected = _probability_of_a(engine)
    assert 0.02 < expected < 0.98
    assert abs(share - expected) < 4 * (expected * (1 - expected) / len(drawn)) ** 0.5
    assert {answer.text for answer in drawn} == {'"a"', '"b"'}


def _probability_of_a(engine: TransformersChatEngine) -> float:
    """By the chain rule, over every spelling in tokens of the two answers."""
    tokenizer, model = engine._loaded.tokenizer, engine._loaded.model
    prompt = tokenizer.apply_chat_template(
        list(free("ㅠㅠ").messages), add_generation_prompt=True, return_dict=False
    )
    spelling = {token: tokenizer.decode([token]) for token in range(len(tokenizer))}
    weight = {"a": 0.0, "b": 0.0}

    def visit(ids: list[int], said: str, probability: float) -> None:
        whole = {'"a"': "a", '"b"': "b"}.get(said)
        if whole:
            weight[whole] += probability
            return
        with torch.inference_mode():
            scores = model(torch.tensor([ids])).logits[0, -1]
        may = [
            token
            for token, text in spelling.items()
            if text and any(answer.startswith(said + text) for answer in ('"a"', '"b"'))
        ]
        chances = scores[may].softmax(0).tolist()
        for token, chance in zip(may, chances, strict=True):
            visit([*ids, token], said + spelling[token], probability * chance)

    visit(list(prompt), "", 1.0)
    assert sum(weight.values()) == pytest.approx(1)
    return weight["a"]


def test_stopping_ends_every_row() -> None:
    stop = threading.Event()
    done = RowsDone([Row(None, 9), Row(None, 1)], frozenset({2}), stop)
    ids = torch.tensor([[5], [5]])
    assert done(ids, None).tolist() == [False, True]
    stop.set()
    assert done(ids, None).tolist() == [True, True]
