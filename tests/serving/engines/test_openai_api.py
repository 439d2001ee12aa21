"""What a server says is read strictly: an answer, or a reason why it is none."""

import asyncio
import runpy
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.errors import EngineError
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.vllm_server import VllmServerEngine

SERVER = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("scripted_server.py"))))
ASKED, SCHEMA = SERVER.ASKED, SERVER.SCHEMA
http, said, play, ask = SERVER.http, SERVER.said, SERVER.play, SERVER.ask
Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


def test_a_cut_answer_says_so() -> None:
    assert ask(http(said("아니", "length"))).finish_reason == "length"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (http(b"<html>"), "no answer: b'<html>'"),
        (http(b""), "no answer: b''"),
        (http(b'{"choices":[{"mess'), "no answer"),
        (http([]), "no answer"),
        (http({"choices": []}), "no answer"),
        (http(said() | {"choices": said()["choices"] * 2}), "no answer"),
        (http(said(None)), "no answer"),
        (http(said(["네"])), "no answer"),
        (http(said(tokens=-1)), "no answer"),
        (http(said(finish=None)), "no answer"),
        (http({"choices": said()["choices"]}), "no answer"),
        (http(said(finish="abort")), "ended its answer with 'abort'"),
        (http(said("", "length", 0)), "leaves no room"),
        (http({"error": {"message": "bad"}}, 500), r"failed \(500\): 'bad'"),
        (http(b"\xff\x00", 500), r"failed \(500\)"),
        (http(b"", 302, extra="Location: /x\r\n"), r"failed \(302\)"),
        (http({"error": {"message": "context is 512"}}, 400), r"refused \(400\): 'context is 512'"),
        (http({"error": "no"}, 405), r"refused \(405\)"),
        (b"nonsense\r\n\r\n", "broke off"),
        (SERVER.hang_up, "broke off"),
        (SERVER.break_off, "broke off"),
    ],
)
def test_whatever_the_server_says_is_a_reason_and_asked_once(
    reply: bytes | Write, reason: str
) -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> tuple[ChatAnswer, int]:
        return (await engine.complete([ASKED]))[0], len(fake.requests)

    answer, asked = play(scene, reply)
    assert answer.finish_reason == "error"
    assert answer.text == ""
    with pytest.raises(EngineError, match=reason):
        raise EngineError(answer.error)
    assert asked == 1


@pytest.mark.parametrize("text", ["네, 맛있어요", '{"a":1', "", '{"a":1} 끝'])
def test_a_schema_that_was_not_heeded_is_noticed(text: str) -> None:
    request = ChatRequest(ASKED.messages, schema=SCHEMA)
    assert "did not heed the JSON Schema" in str(ask(http(said(text)), request=request).error)
    assert ask(http(said(text))).text == text
