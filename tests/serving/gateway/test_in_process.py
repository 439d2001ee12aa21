"""OpenAI's chats, answered by an engine in the gateway's own process."""

import json

import orjson
import pytest

from data.errors import EngineError
from serving.engines.chat import ChatAnswer

SCHEMA = {"enum": ["negative", "neutral", "positive"]}


def test_an_engine_in_process_answers_chats(start_language, engine, exposures, chat, turn):
    engine.instead["감성"] = ChatAnswer('"positive"', "stop", 12, 4)
    said = {"structured_outputs": {"json": SCHEMA}, "seed": 7, "max_tokens": 9, "temperature": 0.5}
    with start_language() as client:
        answer = chat(client, {"X-Request-Id": "c1"}, n=1, top_p=1.0, **said).json()
    assert answer["id"] == "chatcmpl-c1"
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "후기-champion"
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": '"positive"'}
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}
    ((request,),) = engine.calls
    assert request.messages == [turn]
    assert (request.schema, request.seed, request.max_tokens) == (SCHEMA, 7, 9)
    assert request.temperature == 0.5
    assert len(exposures()) == 1


def test_an_engine_in_process_streams_in_one_part(start_language, engine, chat):
    engine.instead["감성"] = ChatAnswer("네", "length", 12, 4)
    with start_language() as client:
        answer = chat(client, stream=True, stream_options={"include_usage": True})
        assert answer.headers["Content-Type"].startswith("text/event-stream")
    *parts, done = [line for line in answer.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    first, last, usage = (json.loads(part.removeprefix("data: ")) for part in parts)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "네"}
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["usage"]["total_tokens"] == 16
    assert {each["object"] for each in (first, last, usage)} == {"chat.completion.chunk"}


@pytest.mark.parametrize(
    ("change", "schema"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"structured_outputs": {"json_object": True}}, {"type": "object"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            SCHEMA,
        ),
    ],
)
def test_an_engine_in_process_is_constrained_as_asked(start_language, engine, change, schema, chat):
    with start_language() as client:
        assert chat(client, **change).status_code == 200
    assert engine.calls[0][0].schema == schema


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"top_p": 0.5}, "top_p"),
        ({"n": 2}, "n"),
        ({"stop": ["."]}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"structured_outputs": {"regex": "a+"}}, "structured_outputs"),
    ],
)
def test_what_an_engine_in_process_does_not_heed_is_refused(
    start_language, change, field, chat, assert_error
):
    with start_language() as client:
        assert_error(chat(client, **change), 422, "unsupported_field", field)
        completion = client.post("/v1/completions", json={"prompt": "국물이"})
        assert_error(completion, 422, "unsupported_field", "prompt")


def test_an_engine_in_process_that_refuses_or_fails(
    start_language, engine, exposures, chat, assert_error
):
    with start_language() as client:
        engine.instead["감성"] = ChatAnswer("", "error", error="the prompt has 9,000 tokens")
        assert "9,000" in assert_error(chat(client), 422, "engine_refused")
        engine.instead["감성"] = EngineError("out of memory")
        assert_error(chat(client), 503, "engine_failed")
    (failed,) = exposures()  # what the engine refused is the caller's own
    assert (failed["status"], failed["arm"]) == ("failed", "champion")
    assert orjson.loads(failed["prediction"])["error"] == "engine_failed"
