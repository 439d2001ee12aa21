import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tenacity import Future, RetryCallState

from data.errors import EngineError, SettingsError
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.openai_api import ServerError
from serving.engines.vllm_server import Patience, VllmServerEngine

Result = TypeVar("Result")
Write = Callable[[asyncio.StreamWriter], Awaitable[None]]
ASKED = ChatRequest([{"role": "user", "content": "국물이 진해요"}], max_tokens=9)
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"]}
QUICK = Patience(timeout_s=5.0, connect_s=2.0, attempts=3, backoff_s=0.01, failures=100, pause_s=60)


def http(body: object, status: int = 200, *, extra: str = "", length: int | None = None) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {length or len(content)}\r\n{extra}\r\n"
    return head.encode() + content


def said(text: Any = "네", finish: Any = "stop", tokens: Any = 2) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": tokens},
    }


@dataclass
class FakeServer:
    """Says what it is told to, one entry a request; the last one again and again."""

    replies: list[bytes | Write]
    requests: list[tuple[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    url: str = ""
    inside: int = 0
    most_inside: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await self._head(reader):
                length = [line for line in head.lower().split("\r\n") if "content-length" in line]
                body = await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
                self.requests.append((head.split(" ")[1], json.loads(body) if body else None))
                self.headers.append(head)
                self.inside += 1
                self.most_inside = max(self.most_inside, self.inside)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                else:
                    await reply(writer)
                self.inside -= 1
        finally:
            writer.close()

    async def _head(self, reader: asyncio.StreamReader) -> str:
        try:
            return (await reader.readuntil(b"\r\n\r\n")).decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return ""


@asynccontextmanager
async def serving(*replies: bytes | Write) -> AsyncIterator[FakeServer]:
    fake = FakeServer(list(replies))
    server = await asyncio.start_server(fake.answer, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()


Scene = Callable[[VllmServerEngine, FakeServer], Coroutine[Any, Any, Result]]


def play(scene: Scene[Result], *replies: bytes | Write, **options: Any) -> Result:
    """Run a scene with an engine before a fake server."""

    async def run() -> Result:
        async with serving(*replies) as fake:
            engine = VllmServerEngine(fake.url, "matjip", **{"patience": QUICK} | options)
            try:
                return await scene(engine, fake)
            finally:
                await engine.aclose()

    return asyncio.run(run())


def ask(*replies: bytes | Write, request: ChatRequest = ASKED, **options: Any) -> ChatAnswer:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> ChatAnswer:
        [answer] = await engine.complete([request])
        return answer

    return play(scene, *replies, **options)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(http(said(), length=10_000))
    await writer.drain()
    writer.close()


async def stay_silent(writer: asyncio.StreamWriter) -> None:
    await writer.wait_closed()


async def drip(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever: each read is in time, the answer never is."""
    writer.write(http(b"", length=10_000))
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


def test_an_answer_is_read_and_the_request_is_openais() -> None:
    request = ChatRequest(ASKED.messages, schema=SCHEMA, max_tokens=7, temperature=0.5, seed=3)

    async def scene(engine: VllmServerEngine, fake: FakeServer) -> tuple[ChatAnswer, FakeServer]:
        return (await engine.complete([request]))[0], fake

    answer, fake = play(scene, http(said('{"a":1}', "stop", 4)), api_key="geheim")
    assert answer == ChatAnswer('{"a":1}', "stop", 5, 4)
    [(path, body)] = fake.requests
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "matjip",
        "messages": [{"role": "user", "content": "국물이 진해요"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": 3,
        "stream": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    }
    assert "authorization: bearer geheim" in fake.headers[0].lower()


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(ending: str) -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> str | None:
        same = VllmServerEngine(fake.url + ending, "matjip", patience=QUICK)
        [answer] = await same.complete([ASKED])
        await same.aclose()
        return answer.error

    assert play(scene, http(said())) is None


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://host", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="http://host:port"):
        VllmServerEngine(address, "matjip")
    with pytest.raises(SettingsError, match="concurrency=0"):
        VllmServerEngine("http://h", "matjip", concurrency=0)


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
        (http({"error": "no"}, 404), r"refused \(404\)"),
        (b"nonsense\r\n\r\n", "broke off"),
        (hang_up, "broke off"),
        (break_off, "broke off"),
    ],
)
def test_whatever_the_server_says_is_a_reason_and_asked_once(
    reply: bytes | Write, reason: str
) -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> tuple[ChatAnswer, int]:
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


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_was_turned_away_is_asked_again(status: int) -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> tuple[ChatAnswer, int]:
        return (await engine.complete([ASKED]))[0], len(fake.requests)

    busy = http({"error": {"message": "busy"}}, status)
    assert play(scene, busy, busy, http(said())) == (ChatAnswer("네", "stop", 5, 2), 3)
    answer, asked = play(scene, busy)
    assert "busy" in str(answer.error)
    assert asked == 3


def test_waits_are_drawn_at_random_and_heed_the_server() -> None:
    engine = VllmServerEngine("http://h", "m", patience=Patience(backoff_s=0.5))

    def wait(attempt: int, wait_s: float) -> float:
        state: Any = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = attempt
        state.outcome = Future(attempt)
        state.outcome.set_exception(ServerError("busy", wait_s=wait_s))
        return engine._wait_s(state)

    first = [wait(1, 0) for _ in range(200)]
    third = [wait(3, 0) for _ in range(200)]
    assert len(set(first)) > 100
    assert 0 <= min(first) < max(first) <= 0.5
    assert 0.5 < max(third) <= 2.0
    assert 4 <= wait(1, 4) <= 4.5
    assert wait(1, 1e9) <= 10.5


def test_a_server_says_how_long_to_wait() -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> float:
        begun = time.monotonic()
        assert (await engine.complete([ASKED]))[0].error is None
        return time.monotonic() - begun

    assert play(scene, http(b"", 429, extra="Retry-After: 1\r\n"), http(said())) > 0.9
    assert play(scene, http(b"", 429, extra="Retry-After: soon\r\n"), http(said())) < 0.9


def test_nobody_listening_is_asked_again_and_named() -> None:
    async def scene() -> tuple[ChatAnswer, float]:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        engine = VllmServerEngine(f"http://127.0.0.1:{port}", "matjip", patience=QUICK)
        [answer] = await engine.complete([ASKED])
        assert await engine.health() is False
        await engine.aclose()
        return answer, engine._breakers.uow.contexts.breakers["vllm"].failure_count

    answer, failures = asyncio.run(scene())
    assert "cannot be reached" in str(answer.error)
    assert failures == QUICK.attempts


@pytest.mark.parametrize("reply", [stay_silent, drip])
def test_an_answer_that_does_not_come_is_given_up_once(reply: Write) -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> tuple[str | None, float, int]:
        begun = time.monotonic()
        [answer] = await engine.complete([ASKED])
        return answer.error, time.monotonic() - begun, len(fake.requests)

    patience = Patience(timeout_s=0.2, backoff_s=0.01)
    error, took_s, asked = play(scene, reply, patience=patience)
    assert "did not answer in 0.2 s" in str(error)
    assert took_s < 3
    assert asked == 1


def test_a_failing_server_is_left_alone_and_comes_back() -> None:
    patience = Patience(failures=3, pause_s=0.3, attempts=1)

    async def scene(engine: VllmServerEngine, fake: FakeServer) -> None:
        for _ in range(3):
            [answer] = await engine.complete([ASKED])
            assert "failed (500)" in str(answer.error)
        [answer] = await engine.complete([ASKED])
        assert "3 times in a row and is left alone for 0.3 s" in str(answer.error)
        assert len(fake.requests) == 3
        fake.replies = [http(said())]
        assert await engine.health() is True
        deadline = time.monotonic() + 10
        while (await engine.complete([ASKED]))[0].error:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        fake.replies = [http(b"", 500), http(said())]
        answers = [(await engine.complete([ASKED]))[0].error is None for _ in range(3)]
        assert answers == [False, True, True]

    play(scene, http(b"", 500), patience=patience)


@pytest.mark.parametrize("status", [400, 404, 422, 429])
def test_what_the_server_refuses_is_not_its_failure(status: int) -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> int:
        for _ in range(4):
            await engine.complete([ASKED])
        return len(fake.requests)

    patience = Patience(failures=2, attempts=1)
    assert play(scene, http(b"", status), patience=patience) == 4


def test_callers_who_leave_do_not_count_against_the_server() -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> str | None:
        for _ in range(4):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.complete([ASKED]), 0.05)
        fake.replies = [http(said())]
        return (await engine.complete([ASKED]))[0].error

    assert play(scene, stay_silent, patience=Patience(failures=2)) is None


def test_requests_at_once_are_bounded_and_keep_their_order() -> None:
    async def slow(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(http(said()))

    replies = [http(said(str(n))) for n in range(40)]

    async def scene(engine: VllmServerEngine, fake: FakeServer) -> int:
        answers = await engine.complete([ASKED] * 20)
        assert all(answer.error is None for answer in answers)
        assert len(fake.requests) == 20
        return fake.most_inside

    assert 1 < play(scene, slow, concurrency=4) <= 4

    async def in_order(engine: VllmServerEngine, fake: FakeServer) -> list[str]:
        return [answer.text for answer in await engine.complete([ASKED] * 40)]

    assert play(in_order, *replies, concurrency=1) == [str(n) for n in range(40)]


def test_one_that_fails_harms_no_other() -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> list[bool]:
        odd = ChatRequest(ASKED.messages, temperature=float("nan"))
        torn = ChatRequest([{"role": "user", "content": "\ud800"}])
        answers = await engine.complete([ASKED, odd, ASKED, torn, ASKED, ASKED])
        assert len(fake.requests) == 4
        return [answer.error is None for answer in answers]

    said_well, failed = http(said()), http(b"", 500)
    assert play(scene, said_well, said_well, failed, said_well, concurrency=1) == [
        *(True, False, True, False, False, True)
    ]


def test_it_may_be_used_from_one_loop_after_another() -> None:
    engine = VllmServerEngine("http://127.0.0.1:1", "matjip", patience=QUICK)

    async def once() -> None:
        async with serving(http(said())) as fake:
            engine._root = fake.url
            assert (await engine.complete([ASKED]))[0].text == "네"

    asyncio.run(once())
    asyncio.run(once())


def events(*pieces: object, ended: bool = True) -> bytes:
    lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
    body = "".join([*lines, "data: [DONE]\n\n" if ended else ""]).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    return head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def delta(text: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": {} if text is None else {"content": text}}]}


def stream(*replies: bytes | Write, **options: Any) -> tuple[list[str], str | None]:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> tuple[list[str], str | None]:
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
        (hang_up, "", "broke off"),
        (break_off, "", "broke off"),
        (stay_silent, "", "did not answer in 0.2 s"),
    ],
)
def test_a_stream_that_goes_wrong_says_so(reply: bytes | Write, before: str, reason: str) -> None:
    pieces, error = stream(reply, patience=Patience(timeout_s=0.2))
    assert "".join(pieces) == before
    assert reason in str(error)


def test_a_listener_who_leaves_a_stream_does_not_count_against_the_server() -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> None:
        for _ in range(4):
            pieces = engine.stream(ASKED)
            assert await anext(pieces) == "국"
            await pieces.aclose()  # type: ignore[attr-defined]
        assert (await engine.complete([ASKED]))[0].error is None

    replies = [events(delta("국"), delta("물"))] * 4
    play(scene, *replies, http(said()), patience=Patience(failures=2))


def test_models_health_and_adapters() -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> None:
        assert await engine.models() == ["matjip", "challenger"]
        assert await engine.health() is True
        assert await engine.health() is False
        await engine.load_adapter("challenger", Path("/models/adapter"))
        await engine.unload_adapter("challenger")
        assert fake.requests[-2:] == [
            (
                "/v1/load_lora_adapter",
                {"lora_name": "challenger", "lora_path": "/models/adapter", "load_inplace": True},
            ),
            ("/v1/unload_lora_adapter", {"lora_name": "challenger"}),
        ]
        with pytest.raises(EngineError, match=r"refused \(404\): 'no such adapter'"):
            await engine.unload_adapter("nobody")
        with pytest.raises(EngineError, match="lists no models but"):
            await engine.models()

    play(
        scene,
        http({"data": [{"id": "matjip"}, {"id": "challenger"}]}),
        http(b""),
        http(b"", 503),
        http(b"ok"),
        http(b"ok"),
        http({"error": {"message": "no such adapter"}}, 404),
        http({"data": 3}),
    )


def test_health_is_asked_past_a_full_queue() -> None:
    async def scene(engine: VllmServerEngine, fake: FakeServer) -> bool:
        waiting = asyncio.create_task(engine.complete([ASKED]))
        while not fake.requests:
            await asyncio.sleep(0)
        well = await engine.health()
        waiting.cancel()
        return well

    assert play(scene, stay_silent, http(b""), concurrency=1) is True
