import asyncio
import contextlib
import time

import orjson
import pytest

from bench.gateway_load import is_good, is_saturated, recovery_s
from bench.load_client import Client, LoadPlan, account, due_times, wrong_analysis

GOOD = orjson.dumps({"data": [{"embedding": "AAAA"}]})


class FakeServer:
    """Answers in order, but as ``misbehave`` says for some request ids."""

    def __init__(self, **misbehave):
        self.misbehave = {int(number[1:]): how for number, how in misbehave.items()}
        self.texts = []

    async def __call__(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                number = int(head.split(b"x-request-id:")[1].split()[0])
                size = int(head.split(b"content-length:")[1].split()[0])
                self.texts.append(orjson.loads(await reader.readexactly(size))["input"])
                how = self.misbehave.get(number)
                if how == "hangs up":
                    break
                status, extra, body = b"200 OK", b"", GOOD
                if how == "refuses":
                    status, extra, body = b"429 Too Many", b"Retry-After: 1\r\n", b"{}"
                if how == "empty":
                    body = b'{"data": []}'
                said = number + 1 if how == "another's" else number
                reply = b"HTTP/1.1 %s\r\nx-request-id: %d\r\n%scontent-length: %d\r\n\r\n%s" % (
                    status, said, extra, len(body), body,
                )  # fmt: skip
                writer.write(reply * (2 if how == "twice" else 1))
        writer.close()


def load(server, *, rate=200.0, seconds=0.1, **more):
    async def run():
        listening = await asyncio.start_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        plan = LoadPlan(port=port, texts=["a", "b"], rate=rate, seconds=seconds, **more)
        client = Client(plan)
        await client.run()
        listening.close()
        return client

    client = asyncio.run(run())
    return client, account(client.replies, client.seen, cpu_share=0.1)


def test_every_reply_is_accounted_for():
    server = FakeServer()
    _, totals = load(server)
    assert totals["sent"] == totals["answered"] == 20
    assert totals["lost"] == totals["duplicated"] == totals["wrong"] == 0
    assert totals["error_share"] == 0.0
    assert sorted(server.texts) == ["a"] * 10 + ["b"] * 10


def test_faults_are_told_apart():
    _, totals = load(
        FakeServer(n2="refuses", n5="hangs up", n7="empty", n11="another's", n19="twice")
    )
    assert totals["refused"] == totals["refused_with_retry_after"] == 1
    assert totals["lost"] == 1
    assert totals["wrong"] == 2
    assert totals["duplicated"] >= 1


def test_a_reply_sent_twice_is_found_whoever_reads_it():
    _, totals = load(FakeServer(n3="twice"))
    assert totals["duplicated"] >= 1


def test_a_silent_server_loses_all_and_the_client_ends():
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    _, totals = load(silent, patience_s=0.2)
    assert totals["lost"] == totals["sent"]
    assert totals["p99_ms"] is None
    assert not is_good(totals)


def test_latency_counts_from_when_the_request_was_due():
    async def slow_client():
        server = await asyncio.start_server(FakeServer(), "127.0.0.1", 0)
        plan = LoadPlan(
            port=server.sockets[0].getsockname()[1], texts=["a"], rate=1_000.0, seconds=0.01
        )
        client = Client(plan)
        running = asyncio.create_task(client.run())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)
        await running
        server.close()
        return client.replies

    replies = asyncio.run(slow_client())
    assert max(reply.latency_ms for reply in replies) > 90


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_the_schedule_does_not_depend_on_the_server(arrivals):
    plan = LoadPlan(port=1, texts=["a"], rate=50.0, seconds=40.0, arrivals=arrivals)
    times = due_times(plan)
    assert times == due_times(plan)
    assert times == sorted(times)
    assert len(times) == 2_000
    assert times[-1] == pytest.approx(40.0, rel=0.1)


def test_a_busy_client_is_not_believed():
    assert is_saturated({"client_cpu_share": 0.9, "lag_p99_ms": 1.0})
    assert is_saturated({"client_cpu_share": 0.1, "lag_p99_ms": 99.0})
    assert not is_saturated({"client_cpu_share": 0.1, "lag_p99_ms": 1.0})


def test_recovery_is_when_the_last_late_request_was_due():
    def reply(at_s, latency_ms, status=200):
        return {"at_s": at_s, "latency_ms": latency_ms, "status": status}

    assert recovery_s([reply(0.0, 10.0), reply(1.0, 10.0)]) == 0.0
    assert recovery_s([reply(0.0, 900.0), reply(1.0, None, 429), reply(2.0, 9.0)]) == 1.0
    assert recovery_s([reply(0.0, 9.0), reply(1.0, 900.0)]) is None


def test_an_analysis_tells_its_arm_and_what_is_wrong_with_it():
    right = orjson.dumps({"results": [{"status": "ok", "arm": "control"}]})
    failed = orjson.dumps({"results": [{"status": "error", "arm": "control"}]})
    assert wrong_analysis("r1", "r1", 200, right) == ("", "control")
    assert wrong_analysis("r1", "r2", 200, right) == ("the reply is to request 'r2'", None)
    assert wrong_analysis("r1", "r1", 503, b"{}") == ("", None)
    assert wrong_analysis("r1", "r1", 200, failed)[0] == "the reply has not one prediction"
