"""Whether an answer is the JSON that was asked for, and what it cost."""

import orjson
import pytest

from serving.engines.chat import ChatAnswer
from serving.gateway.language_schemas import ChatIn, CompletionIn
from serving.gateway.output_form import keeps_its_form, tokens_of

TURN = {"role": "user", "content": "국물의 감성은?"}
JSON = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"enum": ["positive"]}}}


def said(*contents):
    return {"choices": [{"message": {"content": each}} for each in contents]}


@pytest.mark.parametrize(
    ("constraint", "contents", "kept"),
    [
        ({}, ["긍정이에요"], True),
        ({"response_format": {"type": "text"}}, ["긍정이에요"], True),
        ({"response_format": JSON}, ['"positive"'], True),
        ({"response_format": JSON}, ['{"감성": "긍'], False),
        ({"response_format": {"type": "json_object"}}, ["{}", "그건 {}"], False),
        ({"structured_outputs": {"json": {}}}, [None], False),
        ({"structured_outputs": {"json_object": True}}, ["{}"], True),
        ({"structured_outputs": {"choice": ["긍정", "부정"]}}, ["긍정"], True),
    ],
)
def test_json_where_json_was_asked_for(constraint, contents, kept):
    asked = ChatIn.model_validate({"messages": [TURN]} | constraint)
    assert keeps_its_form(asked, said(*contents)) is kept


def test_a_completion_has_no_form():
    assert keeps_its_form(CompletionIn(prompt="국물이"), {"choices": [{"text": "{"}]})


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [({"total_tokens": 12}, 12), ({"total_tokens": -1}, None), ({}, None), ("x", None)],
)
def test_tokens_are_counted_where_the_server_counts_them(usage, tokens):
    assert tokens_of({"usage": usage}) == tokens
    assert tokens_of({}) is None


def test_an_answer_that_is_cut_short_is_stored_as_degraded(start_language, engine, exposures, chat):
    engine.instead["감성"] = ChatAnswer('{"감성": "긍', "length", 12, 4)
    with start_language() as client:
        assert chat(client, response_format={"type": "json_object"}).status_code == 200
        assert chat(client).status_code == 200
    cut, plain = exposures()
    assert [cut["status"], plain["status"]] == ["degraded", "ok"]
    assert cut["cost"] == 16.0
    assert orjson.loads(cut["prediction"])["task"] == "/v1/chat/completions"
