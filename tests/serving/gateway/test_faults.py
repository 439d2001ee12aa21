"""What breaks around a running gateway, and how it answers meanwhile and afterwards."""

import contextlib
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import orjson
import pytest

from serving.batching.memory import MemoryReading
from serving.gateway.embedding_model import EmbeddingModel


def embed(client: httpx.Client, *texts: str) -> httpx.Response:
    return client.post("/v1/embeddings", json={"input": list(texts)})


def until(what: Callable[[], bool], within_s: float) -> float:
    """Seconds until it holds."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < within_s
        time.sleep(0.02)
    return time.monotonic() - started


def is_ready(client: httpx.Client) -> bool:
    return client.get("/ready").status_code == 200


def count(client: httpx.Client, series: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"matjip_{series}"))


@contextlib.contextmanager
def raw_request(client: httpx.Client, path: str, body: object):
    """A request on a socket of its own, sent whole; closing it hangs up."""
    content = orjson.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head.encode() + content)
        yield connection


def test_a_caller_who_hangs_up_is_called_off_and_frees_the_place(start_embedding, faulty):
    with start_embedding(workers=1, max_queue_texts=3) as client:
        (engine,) = faulty
        engine.gate.clear()
        with raw_request(client, "/v1/embeddings", {"input": ["맛"] * 3}):
            until(lambda: count(client, "queue_texts") == 3, 5)
            assert embed(client, "맛").status_code == 429
        until(lambda: count(client, "queue_texts") == 0, 5)
        until(lambda: count(client, 'requests_total{route="/v1/embeddings",status="499"') == 1, 5)
        engine.gate.set()
        assert embed(client, "맛있어요").status_code == 200
        assert count(client, "batch_rejected_total") >= 2


def test_who_hangs_up_on_an_analysis_leaves_no_exposure(
    start_embedding, faulty, deployment, tmp_path
):
    with start_embedding(serve={"deployment": deployment}, workers=1) as client:
        for engine in faulty:
            engine.gate.clear()
        body = {"reviews": [{"text": "맛있어요"}] * 8, "unit": "u"}
        with raw_request(client, "/v1/analyze", body):
            until(lambda: count(client, "queue_texts") == 8, 5)
        until(lambda: count(client, 'requests_total{route="/v1/analyze",status="499"') == 1, 5)
        for engine in faulty:
            engine.gate.set()
        assert client.post("/v1/analyze", json=body).status_code == 200
    store = sqlite3.connect(tmp_path / "store.db")
    assert store.execute("SELECT count(*) FROM exposures").fetchone() == (8,)
    store.close()


def test_five_times_too_much_is_refused_at_once_and_the_rest_is_answered(
    start_embedding, faulty, assert_error
):
    def send(client: httpx.Client) -> httpx.Response:
        return embed(client, "국물 맛있어요")

    with start_embedding(workers=1, max_queue_texts=8) as client, ThreadPoolExecutor(40) as pool:
        faulty[0].fault = "slow"
        until_s = time.monotonic() + 3.0
        answers: list[httpx.Response] = []
        while time.monotonic() < until_s:  # 40 at once, where about 20 a second are answered
            answers += pool.map(send, [client] * 40)
        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {200, 429}
        assert statuses[200] >= 8
        for answer in answers:
            if answer.status_code == 429:
                assert_error(answer, 429, "overloaded")
                assert int(answer.headers["Retry-After"]) >= 1
        assert is_ready(client)
        faulty[0].fault = ""
        assert send(client).status_code == 200
        assert count(client, 'rejected_total{code="overloaded"}') == statuses[429]


def test_an_engine_that_answers_nan_is_not_ready_until_it_recovers(
    start_embedding, faulty, assert_error
):
    with start_embedding() as client:
        assert is_ready(client)
        faulty[0].fault = "nan"
        for _ in range(3):
            assert_error(embed(client, "맛", "별로"), 503, "engine_failed", "input")
        until(lambda: not is_ready(client), 2)
        ready = client.get("/ready").json()
        assert "matjip-embedding/1" in ready["reasons"][0]
        assert client.get("/health").status_code == 200
        faulty[0].fault = ""
        until(lambda: is_ready(client), 10)
        assert embed(client, "맛", "별로").status_code == 200


def test_a_compute_thread_that_dies_is_replaced_and_the_request_answered(start_embedding, faulty):
    with start_embedding(workers=1) as client:
        faulty[0].fault = "exit"
        assert embed(client, "맛있어요", "별로").status_code == 200
        assert count(client, "worker_deaths_total") == 1
        assert count(client, "batch_retries_total") >= 1


def test_a_tokenizer_that_raises_fails_one_request_alone(
    start_embedding, faulty, deployment, analyze, assert_error, embedding_deployments
):
    both = {"deployment": deployment, "embedding": embedding_deployments[0]}
    with start_embedding(serve=both) as client:
        broken = embed(client, "맛", "토큰 오류")
        assert "apart" in assert_error(broken, 503, "tokenizer_failed")
        assert int(broken.headers["Retry-After"]) >= 1
        assert embed(client, "맛").status_code == 200
        items = analyze(client, "맛있어요", "토큰 오류", "별로").json()["results"]
        assert [item["status"] for item in items] == ["ok", "error", "ok"]
        assert items[1]["error"]["code"] == "engine_failed"
        assert is_ready(client)


def test_a_tokenizer_that_always_fails_is_a_reason(start_embedding, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("the tokenizer broke")

    with start_embedding() as client:
        assert is_ready(client)
        with monkeypatch.context() as patch:
            patch.setattr(EmbeddingModel, "_encode", broken)
            assert [embed(client, "맛").status_code for _ in range(3)] == [503] * 3
            until(lambda: not is_ready(client), 10)
            assert "the tokenizer broke" in str(client.get("/ready").json()["reasons"])
        until(lambda: is_ready(client), 10)


def test_a_full_queue_refuses_before_anything_is_tokenised(start_embedding, faulty, monkeypatch):
    with start_embedding(workers=1, max_queue_texts=3) as client:
        faulty[0].gate.clear()
        with raw_request(client, "/v1/embeddings", {"input": ["맛"] * 3}):
            until(lambda: count(client, "queue_texts") == 3, 5)
            monkeypatch.setattr(EmbeddingModel, "tokenise", None)  # calling it would be a 503
            assert embed(client, "맛").status_code == 429
        faulty[0].gate.set()


def test_a_tuned_engine_that_is_not_served_is_warned_of(
    start_embedding, embedding_deployments, tmp_path, monkeypatch
):
    monkeypatch.setenv("MATJIP_VAR", str(tmp_path))
    (tmp_path / "engines").mkdir()
    digest = embedding_deployments[0].manifest_digest
    (tmp_path / "engines" / f"{digest[:16]}-{'0' * 16}.json").write_text("{}")
    with start_embedding() as client:
        (warning,) = client.get("/ready").json()["warnings"]
        assert "tuned on other hardware" in warning
        assert "make tune-engine" in warning
        assert is_ready(client)


def test_out_of_memory_halves_the_batch_and_everybody_is_answered(start_embedding, faulty):
    with start_embedding(workers=1) as client:
        whole = embed(client, *["맛있어요", "별로"] * 8).json()["data"]
        faulty[0].fault = "memory"
        halved = embed(client, *["맛있어요", "별로"] * 8)
        assert halved.status_code == 200
        assert count(client, "out_of_memory_total") >= 1
        for first, second in zip(whole, halved.json()["data"], strict=True):
            assert second["embedding"] == pytest.approx(first["embedding"], abs=1e-5)


def test_memory_taken_by_another_process_is_a_reason_until_it_is_back(
    start_embedding, faulty, monkeypatch
):
    free = [8 * 2**30]
    monkeypatch.setattr(
        "serving.gateway.sharing.HostMemory", lambda: lambda: MemoryReading(free[0], 2**28)
    )
    with start_embedding(deadline_s=1.0) as client:
        assert embed(client, "맛").status_code == 200
        free[0] = 2**20
        until(lambda: not is_ready(client), 2)
        assert "memory" in client.get("/ready").json()["reasons"][0]
        assert embed(client, "맛").status_code in {429, 503}
        assert count(client, "memory_free_bytes") == 2**20
        free[0] = 8 * 2**30
        until(lambda: is_ready(client), 10)
        assert embed(client, "맛").status_code == 200


def test_what_takes_too_long_is_a_503_that_says_when_to_come_again(
    start_embedding, faulty, assert_error
):
    with start_embedding(workers=1, deadline_s=0.5) as client:
        embed(client, "맛")
        faulty[0].gate.clear()
        late = embed(client, "맛")
        assert_error(late, 503, "deadline_passed")
        assert int(late.headers["Retry-After"]) >= 1
        faulty[0].gate.set()
        until(lambda: embed(client, "맛").status_code == 200, 5)


def test_a_store_that_fails_is_a_reason_until_it_is_mended(start_embedding, tmp_path):
    with start_embedding() as client:
        assert is_ready(client)
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("ALTER TABLE exposures RENAME TO hidden")
        other.execute("ALTER TABLE outcomes RENAME TO hidden_too")
        until(lambda: not is_ready(client), 3)
        assert "experiment store" in client.get("/ready").json()["reasons"][0]
        other.execute("ALTER TABLE hidden RENAME TO exposures")
        other.execute("ALTER TABLE hidden_too RENAME TO outcomes")
        until(lambda: is_ready(client), 10)
        assert other.execute("SELECT count(*) FROM outcomes").fetchone() == (0,)
        other.close()
