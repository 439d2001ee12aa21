"""A server's answers piece by piece: whole, broken off, and left by their listener."""

import asyncio
import json
import runpy
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.errors import EngineError
from serving.engines.vllm_server import Patience, VllmServerEngine

SERVER = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("scripted_server.py"))))
ASKED, http, said, play = SERVER.ASKED, SERVER.http, SERVER.said, SERVER.play
Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


def events(*pieces: object, ended: bool = True) -> bytes:
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    body = "".join([*lines, "data: [DONE]\n\n" if ended else ""]).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def delta(text: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": {} if text is None else {"content": text}}]}


def stream(*replies: bytes | Write, **options: Any) -> tuple[list[str], str | None]:
    async def scene(engine: VllmServerEngine, fake: Any) -> tuple[list[str], str | None]:
        pieces = []
        try:
            async for piece in engine.stream(ASKED):
                pieces.append(piece)  # noqa: PERF401  # what came before an error is kept
        except EngineError as error:
            return pieces, str(error)
        assert fake.requests[0][1]["stream"] is True
        return pieces, None

    return play(scene, *replies, **options)


def test_an_answer_streams_piece_by_piece() -> None:
    reply = events(delta(None), delta("국물이 "), delta("진해요"), delta(None), {"choices": []})
    pieces, error = stream(reply)
    assert "".join(pieces) == "국물이 진해요"
    assert error is None


@pytest.mark.parametrize(
    ("reply", "before", "reason"),
    [
        (events(delta("국"), ended=False), "국", "broke off"),
        (events(delta("국"), {"error": {"message": "dead"}}), "국", "no answer"),
        (events(delta("국"), {"choices": [{}]}), "국", "no answer"),
        (events(delta("국"), {"choices": 3}), "국", "no answer"),
        (http({"error": {"message": "too long"}}, 400), "", r"refused (400): 'too long'"),
        (http(b"", 500), "", "failed (500)"),
        (SERVER.hang_up, "", "broke off"),
        (SERVER.break_off, "", "broke off"),
        (SERVER.stay_silent, "", "did not answer in 0.2 s"),
    ],
)
def test_a_stream_that_goes_wrong_says_so(reply: bytes | Write, before: str, reason: str) -> None:
    pieces, error = stream(reply, patience=Patience(timeout_s=0.2))
    assert "".join(pieces) == before
    assert reason in str(error)


def test_a_listener_who_leaves_a_stream_does_not_count_against_the_server() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> None:
        for _ in range(4):
            pieces = engine.stream(ASKED)
            assert await anext(pieces) == "국"
            await pieces.aclose()  # type: ignore[attr-defined]
        assert (await engine.complete([ASKED]))[0].error is None

    replies = [events(delta("국"), delta("물"))] * 4
    play(scene, *replies, http(said()), patience=Patience(failures=2))
