"""A model's server that streams, refuses, lies, stalls or is not there."""

import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest

from serving.engines.openai_api import IDLE_S
from serving.gateway.upstream import FAILURES_IN_A_ROW


def nobody() -> dict[str, Any]:
    """An endpoint where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"kind": "openai", "base_url": f"http://127.0.0.1:{port}", "model": "served"}


def until_ok(client: httpx.Client, chat: Callable[..., httpx.Response]) -> httpx.Response:
    """The first answer that is not a 429; the test's own limit ends it otherwise."""
    while True:
        answer = chat(client)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            return answer


def test_a_stream_comes_through_and_is_recorded_before_it(start_language, vllm, exposures, turn):
    with start_language(vllm.endpoint) as client:
        with client.stream(
            "POST", "/v1/chat/completions", json={"messages": [turn], "stream": True}
        ) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert len(exposures()) == 1
            content = answer.read()
        events = [line for line in content.decode().split("\n\n") if line]
        assert events[-1] == "data: [DONE]"
        texts = [json.loads(each[6:])["choices"][0]["delta"]["content"] for each in events[:-1]]
        assert texts == ["0", "1", "2"]
        page = client.get("/metrics").text
    assert orjson.loads(exposures()[0]["prediction"])["streamed"] is True
    assert vllm.bodies[0]["stream"] is True
    assert 'arm="champion",route="/v1/chat/completions",status="ok"} 1.0' in page


def test_a_caller_who_leaves_a_stream_frees_its_place_and_the_server(
    start_language, vllm, chat, assert_error, turn
):
    vllm.mode = "stalls"
    with start_language(vllm.endpoint, max_language_requests=1) as client:
        with client.stream(
            "POST", "/v1/chat/completions", json={"messages": [turn], "stream": True}
        ) as answer:
            parts = answer.iter_bytes()  # whoever drops it hangs up
            assert next(parts)
            assert_error(chat(client), 429, "too_many_requests")
        assert vllm.left.wait(20)
        vllm.mode = "ok"
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(until_ok, client, chat)
            assert later.result(20).status_code == 200


def test_a_stream_that_stalls_or_breaks_ends_with_an_error_in_it(start_language, vllm, turn):
    body = {"messages": [turn], "stream": True}
    with start_language(vllm.endpoint, upstream_idle_s=0.3) as client:
        for mode in ("stalls", "breaks"):
            vllm.mode = mode
            content = client.post("/v1/chat/completions", json=body).text
            last = [line for line in content.split("\n\n") if line][-1]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_failed"
            assert "[DONE]" not in content
            assert content.count('"delta"') == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "code"),
    [("500", "upstream_failed"), ("404", "upstream_failed"), ("garbage", "upstream_garbage")],
)
def test_a_server_that_fails_is_a_503_and_stands_in_the_store(
    start_language, vllm, exposures, mode, code, stream, chat, assert_error
):
    vllm.mode = mode
    with start_language(vllm.endpoint) as client:
        answer = chat(client, stream=stream)
        assert_error(answer, 503, code)
        assert int(answer.headers["Retry-After"]) >= 1
        vllm.mode = "ok"
        assert chat(client).status_code == 200
    failed, answered = exposures()
    assert (failed["status"], failed["why"], failed["cost"]) == ("failed", "assigned", None)
    assert orjson.loads(failed["prediction"]) == {"task": "/v1/chat/completions", "error": code}
    assert answered["status"] == "ok"


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_is_being_replaced_is_asked_again(start_language, vllm, stream, chat):
    vllm.missing = 2
    with start_language(vllm.endpoint) as client:
        assert chat(client, stream=stream).status_code == 200
    assert len(vllm.bodies) == 3


def test_a_connection_is_not_used_when_the_server_is_about_to_close_it(start_language, vllm, chat):
    with start_language(vllm.endpoint) as client:
        for idle_s, callers in ((0.0, 1), (IDLE_S + 0.2, 2), (0.0, 2)):
            time.sleep(idle_s)
            assert chat(client).status_code == 200
            assert len(vllm.callers) == callers


def test_a_connection_that_fails_is_tried_again(start_language, chat):
    body = b'{"choices": [{"message": {"content": "4"}}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with socket.socket() as late, ThreadPoolExecutor(1) as pool:
        late.bind(("127.0.0.1", 0))  # refuses, until it listens
        url = f"http://127.0.0.1:{late.getsockname()[1]}"
        endpoint = {"kind": "openai", "base_url": url, "model": "served"}
        with start_language(endpoint) as client:
            answer = pool.submit(chat, client)
            late.settimeout(30)
            time.sleep(0.1)
            late.listen()
            caller, _ = late.accept()
            with caller:
                caller.recv(65_536)
                caller.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert answer.result(30).status_code == 200


@pytest.mark.parametrize(("mode", "status"), [("400", 400), ("422", 422), ("413", 413)])
def test_what_the_server_refuses_the_caller_learns(
    start_language, vllm, mode, status, chat, assert_error
):
    vllm.mode = mode
    with start_language(vllm.endpoint) as client:
        message = assert_error(chat(client), status, "upstream_refused")
        assert "no room for 9 tokens" in message
        vllm.mode = "429"
        assert chat(client).headers["Retry-After"] == "1"


def test_a_server_that_is_slow_is_a_503(start_language, vllm, chat, assert_error):
    vllm.mode = "slow"
    with start_language(vllm.endpoint, language_timeout_s=0.3) as client:
        answer = chat(client)
        assert_error(answer, 503, "upstream_timeout")
        assert "Retry-After" in answer.headers


def test_a_server_that_is_not_there_is_left_alone_after_a_while(start_language, chat, assert_error):
    with start_language(nobody()) as client:
        said = {
            assert_error(chat(client), 503, "upstream_unreachable")
            for _ in range(FAILURES_IN_A_ROW)
        }
        assert "ConnectError" in said.pop()
        assert "in a row" in assert_error(chat(client), 503, "upstream_unreachable")
        assert client.get("/ready").json()["language"]["arms"][0]["state"] == "down"
        assert client.get("/ready").status_code == 200


def test_what_a_caller_sends_wrong_never_trips_the_breaker(
    start_language, vllm, chat, assert_error
):
    vllm.mode = "400"
    with start_language(vllm.endpoint) as client:
        for _ in range(FAILURES_IN_A_ROW + 2):
            assert_error(chat(client), 400, "upstream_refused")
        vllm.mode = "ok"
        assert chat(client).status_code == 200


def test_readiness_tells_of_a_model_that_the_server_has_not(start_language, vllm):
    with start_language(vllm.endpoint, vllm.endpoint | {"model": "another"}) as client:
        arms = client.get("/ready").json()["language"]["arms"]
        assert [arm["state"] for arm in arms] == ["up", "model_missing"]
        vllm.mode = "500"
        assert client.get("/ready").json()["language"]["arms"][0]["state"] == "down"
