"""Limits, kills and faults of the gateway, each with a server process of its own."""

import asyncio
import shutil
import signal
import socket
import sqlite3
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import httpx
import orjson

from data.manifest import canonical_digest


def test_a_body_too_large_is_a_413_declared_or_not(
    deployment, start_gateway, analyze, assert_error
):
    large = orjson.dumps({"reviews": [{"text": "가" * 100_000}]})

    def pieces():
        for start in range(0, len(large), 1_000):
            yield large[start : start + 1_000]

    with (
        start_gateway(deployment, max_body_bytes=2_048) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        for content in (large, pieces()):
            answer = client.post("/v1/analyze", content=content)
            assert "2048 bytes" in assert_error(answer, 413, "body_too_large")
        assert_error(client.post("/v1/feedback", content=large), 413, "body_too_large")
        assert analyze(client, "맛있어요").status_code == 200


def test_a_body_that_does_not_come_is_a_408(deployment, start_gateway):
    with start_gateway(deployment, body_timeout_s=0.2) as running:
        address = running.url.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=20) as slow:
            slow.sendall(b"POST /v1/analyze HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
            assert slow.recv(1_000).startswith(b"HTTP/1.1 408")


def test_too_many_at_once_get_a_429_and_the_others_an_answer(
    deployment, start_gateway, analyze, assert_error
):
    text = "국물 맛있어요 " * 1_200

    def send(url: str) -> httpx.Response:
        return httpx.post(f"{url}/v1/analyze", json={"reviews": [{"text": text}] * 20}, timeout=60)

    settings = {"workers": 1, "max_waiting": 1, "max_queue_s": 600, "deadline_s": 600}
    with start_gateway(deployment, **settings) as running, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, [running.url] * 32))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        turned_away = next(answer for answer in answers if answer.status_code == 429)
        assert turned_away.headers["Retry-After"] == "1"
        assert_error(turned_away, 429, "too_many_requests")
        with httpx.Client(base_url=running.url) as client:
            assert analyze(client, "맛있어요").status_code == 200
            page = client.get("/metrics").text
    assert f'rejected_total{{code="too_many_requests"}} {statuses.count(429)}.0' in page


def test_a_killed_gateway_has_lost_no_answer_it_gave(deployment, start_gateway, tmp_path):
    acknowledged: set[tuple[str, int]] = set()
    enough = threading.Event()

    async def load(url: str) -> None:
        async def worker(client: httpx.AsyncClient, number: int) -> None:
            for turn in range(10_000):
                request_id = f"w{number}-{turn}"
                try:
                    answer = await client.post(
                        "/v1/analyze",
                        json={"reviews": [{"text": "맛있어요"}, {"text": "별로"}]},
                        headers={"X-Request-Id": request_id},
                    )
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                acknowledged.update((request_id, item) for item in range(2))
                if len(acknowledged) > 300:
                    enough.set()

        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await asyncio.gather(*(worker(client, number) for number in range(8)))

    with start_gateway(deployment) as running:
        loader = threading.Thread(target=lambda: asyncio.run(load(running.url)))
        loader.start()
        assert enough.wait(120)
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(30)
        loader.join(60)
    assert not loader.is_alive()
    store = sqlite3.connect(tmp_path / "store.db")
    kept = set(store.execute("SELECT request_id, item FROM exposures"))
    assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()
    assert len(acknowledged) > 300
    assert acknowledged <= kept
    with (
        start_gateway(deployment) as again,
        httpx.Client(base_url=again.url) as client,
    ):
        request_id, item = min(acknowledged)
        said = {"request_id": request_id, "item": item, "sentiment": "positive"}
        assert client.post("/v1/feedback", json=said).json()["status"] == "stored"


def test_a_terminated_gateway_answers_what_it_took(deployment, start_gateway, tmp_path):
    settings = {"max_queue_s": 600, "deadline_s": 600, "shutdown_timeout_s": 60}
    with start_gateway(deployment, **settings) as running, ThreadPoolExecutor(4) as pool:
        sent = [
            pool.submit(
                httpx.post,
                f"{running.url}/v1/analyze",
                json={"reviews": [{"text": "국물 맛있어요 " * 1_000}] * 20},
                headers={"X-Request-Id": f"last-{number}"},
                timeout=60,
            )
            for number in range(4)
        ]
        wait(sent, timeout=60, return_when=FIRST_COMPLETED)
        running.process.terminate()
        assert running.process.wait(60) is not None
        answered = [one.result() for one in sent if one.exception() is None]
    store = sqlite3.connect(tmp_path / "store.db")
    kept = store.execute("SELECT count(*) FROM exposures").fetchone()[0]
    store.close()
    assert answered
    assert all(one.status_code == 200 for one in answered)
    assert kept == 20 * len(answered)


def test_another_model_than_was_deployed_is_not_ready(
    deployment, start_gateway, analyze, assert_error
):
    wrong = canonical_digest("another")
    arms = tuple(arm.model_copy(update={"manifest_digest": wrong}) for arm in deployment.arms)
    other = deployment.model_copy(update={"arms": arms})
    with start_gateway(other) as running, httpx.Client(base_url=running.url) as client:
        ready = client.get("/ready")
        assert ready.status_code == 503
        assert not ready.json()["ready"]
        assert wrong[:12] in ready.json()["reasons"][0]
        refused = analyze(client, "맛있어요")
        assert refused.headers["Retry-After"] == "5"
        assert_error(refused, 503, "not_ready")
        assert client.get("/health").status_code == 200


def test_an_altered_model_and_a_store_that_cannot_open_are_both_reasons(
    deployment, tiny_models, start_gateway, tmp_path
):

    altered = shutil.copytree(tiny_models["challenger"], tmp_path / "altered")
    with (altered / "model.onnx").open("ab") as file:
        file.write(b"\0")
    arms = (deployment.arms[0], deployment.arms[1].model_copy(update={"folder": altered}))
    (tmp_path / "file").write_text("")
    with (
        start_gateway(
            deployment.model_copy(update={"arms": arms}),
            store_url=f"sqlite:///{tmp_path / 'file' / 'store.db'}",
        ) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        reasons = client.get("/ready").json()["reasons"]
    assert len(reasons) == 2
    assert "model.onnx" in reasons[0]
    assert "experiment store" in reasons[1]


def test_what_is_answered_from_the_journal_outlives_a_kill_and_a_store_that_refuses(
    deployment, start_gateway, assert_error, tmp_path
):
    settings = {"store_ack": "journaled", "journal_folder": str(tmp_path / "journal")}
    acknowledged: set[str] = set()

    def ask(client: httpx.Client, request_id: str, text: str = "맛있어요") -> httpx.Response:
        return client.post(
            "/v1/analyze",
            json={"reviews": [{"text": text, "unit": "u"}]},
            headers={"X-Request-Id": request_id},
        )

    with (
        start_gateway(deployment, **settings) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        for number in range(40):
            assert ask(client, f"r{number}").status_code == 200
            acknowledged.add(f"r{number}")
        assert_error(ask(client, "r39", "별로"), 409, "request_id_reused", "X-Request-Id")
        said = {"request_id": "r39", "item": 0, "reward": 1.0}
        assert client.post("/v1/feedback", json=said).json()["status"] == "stored"
        store = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        store.execute(
            "CREATE TRIGGER full BEFORE INSERT ON exposures "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        if ask(client, "while-full").status_code == 200:
            acknowledged.add("while-full")
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(30)
    store.execute("DROP TRIGGER full")
    with start_gateway(deployment, **settings) as again, httpx.Client(base_url=again.url) as client:
        assert client.get("/ready").status_code == 200
    kept = {row[0] for row in store.execute("SELECT request_id FROM exposures")}
    store.close()
    assert len(acknowledged) >= 40
    assert kept == acknowledged
    assert list((tmp_path / "journal").iterdir()) == []
