"""An engine that asks a server: how often, how long, how many at once, and when it stops."""

import asyncio
import runpy
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tenacity import Future, RetryCallState

from data.errors import EngineError, SettingsError
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.openai_api import IDLE_S, ServerError
from serving.engines.vllm_server import Patience, VllmServerEngine

SERVER = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("scripted_server.py"))))
ASKED, SCHEMA, QUICK = SERVER.ASKED, SERVER.SCHEMA, SERVER.QUICK
http, said, play, stay_silent = SERVER.http, SERVER.said, SERVER.play, SERVER.stay_silent
Write = Callable[[asyncio.StreamWriter], Awaitable[None]]


def test_an_answer_is_read_and_the_request_is_openais() -> None:
    request = ChatRequest(ASKED.messages, schema=SCHEMA, max_tokens=7, temperature=0.5, seed=3)

    async def scene(engine: VllmServerEngine, fake: Any) -> tuple[ChatAnswer, Any]:
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
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
        },
    }
    assert "authorization: bearer geheim" in fake.headers[0].lower()


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(ending: str) -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> str | None:
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


@pytest.mark.parametrize("status", [404, 429, 502, 503, 504])
def test_what_was_turned_away_is_asked_again(status: int) -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> tuple[ChatAnswer, int]:
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
    async def scene(engine: VllmServerEngine, fake: Any) -> float:
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


@pytest.mark.parametrize("reply", [stay_silent, SERVER.drip])
def test_an_answer_that_does_not_come_is_given_up_once(reply: Write) -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> tuple[str | None, float, int]:
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

    async def scene(engine: VllmServerEngine, fake: Any) -> None:
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
    async def scene(engine: VllmServerEngine, fake: Any) -> int:
        for _ in range(4):
            await engine.complete([ASKED])
        return len(fake.requests)

    patience = Patience(failures=2, attempts=1)
    assert play(scene, http(b"", status), patience=patience) == 4


def test_callers_who_leave_do_not_count_against_the_server() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> str | None:
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

    async def scene(engine: VllmServerEngine, fake: Any) -> int:
        answers = await engine.complete([ASKED] * 20)
        assert all(answer.error is None for answer in answers)
        assert len(fake.requests) == 20
        return fake.most_inside

    assert 1 < play(scene, slow, concurrency=4) <= 4

    async def in_order(engine: VllmServerEngine, fake: Any) -> list[str]:
        return [answer.text for answer in await engine.complete([ASKED] * 40)]

    assert play(in_order, *replies, concurrency=1) == [str(n) for n in range(40)]


def test_one_that_fails_harms_no_other() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> list[bool]:
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
        async with SERVER.serving(http(said())) as fake:
            engine._root = fake.url
            assert (await engine.complete([ASKED]))[0].text == "네"

    asyncio.run(once())
    asyncio.run(once())


def test_a_prompts_token_ids_are_the_servers_own() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> None:
        assert await engine.token_ids(ASKED.messages) == [1, 46, 2]
        asked = {"model": "matjip", "messages": list(ASKED.messages)}
        assert fake.requests == [("/tokenize", asked)]
        with pytest.raises(EngineError, match="names no token ids but"):
            await engine.token_ids(ASKED.messages)
        with pytest.raises(EngineError, match=r"refused \(404\): 'no such model'"):
            await engine.token_ids(ASKED.messages)

    play(
        scene,
        http({"tokens": [1, 46, 2], "count": 3}),
        http({"tokens": "1 46 2"}),
        http({"error": {"message": "no such model"}}, 404),
    )


def test_models_health_and_adapters() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> None:
        assert await engine.models() == ["matjip", "challenger"]
        assert await engine.health() is True
        assert await engine.health() is False
        with pytest.raises(EngineError, match=r"refused \(404\): 'no such adapter'"):
            await engine.unload_adapter("nobody")
        with pytest.raises(EngineError, match="lists no models but"):
            await engine.models()

    play(
        scene,
        http({"data": [{"id": "matjip"}, {"id": "challenger"}]}),
        http(b""),
        http(b"", 503),
        http({"error": {"message": "no such adapter"}}, 404),
        http({"data": 3}),
    )


def load_challenger(*replies: bytes) -> list[tuple[str, str]]:
    async def scene(engine: VllmServerEngine, fake: Any) -> list[tuple[str, str]]:
        with suppress(EngineError):
            await engine.load_adapter("challenger", Path("/models/adapter"))
        paths = {"lora_path": "/models/adapter"}
        sent = [(path, body) for path, body in fake.requests if body]
        assert all(body == paths | body for path, body in sent if path == "/v1/load_lora_adapter")
        assert not [body for _, body in sent if "load_inplace" in body]
        return [(path.removeprefix("/v1/")[:2], body["lora_name"]) for path, body in sent]

    return play(scene, *replies)


def listing(*names: str) -> bytes:
    return http({"data": [{"id": name} for name in names]})


def test_an_adapter_takes_the_place_of_another_once_it_is_known_to_load() -> None:
    name, trial = "challenger", "challenger.next"
    assert load_challenger(listing("matjip"), http(b"ok")) == [("lo", name)]
    swapped = [("lo", trial), ("un", trial), ("un", name), ("lo", name)]
    assert load_challenger(listing("matjip", name), http(b"ok")) == swapped
    assert load_challenger(listing(trial, name), http(b"ok")) == [("un", trial), *swapped]
    broken = http({"error": {"message": "no such folder"}}, 404)
    assert load_challenger(listing("matjip", name), broken) == [("lo", trial)]


def test_a_connection_is_not_used_when_the_server_is_about_to_close_it() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> list[int]:
        connections = []
        for idle_s in (0.0, IDLE_S + 0.2, 0.0):
            await asyncio.sleep(idle_s)
            assert (await engine.complete([ASKED]))[0].error is None
            connections.append(fake.connections)
        return connections

    assert play(scene, http(said())) == [1, 2, 2]


def test_health_is_asked_past_a_full_queue() -> None:
    async def scene(engine: VllmServerEngine, fake: Any) -> bool:
        waiting = asyncio.create_task(engine.complete([ASKED]))
        while not fake.requests:
            await asyncio.sleep(0)
        well = await engine.health()
        waiting.cancel()
        return well

    assert play(scene, stay_silent, http(b""), concurrency=1) is True
