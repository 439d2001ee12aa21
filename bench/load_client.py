"""Requests at times that were fixed beforehand, whatever the server does; each reply accounted for.

A client that waits for a reply before it sends the next slows down with the server, and so never
sees the worst (coordinated omission). Here every request has its time; latency is counted from that
time, so what the client itself is late is in it. Sockets are plain: an HTTP library would need more
of the core than the gateway's own work.

    python -m bench.load_client PLAN.json OUT.json
"""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field

Arrivals = Literal["constant", "poisson"]
ANALYZE: Final = "/v1/analyze"
UNASKED: Final = "unasked"
"""Where bytes are counted that belong to no request, once more than there are."""
_HEAD_ENDS: Final = b"\r\n\r\n"


class LoadPlan(BaseModel):
    """One stretch of load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int
    path: Literal["/v1/embeddings", "/v1/analyze"] = "/v1/embeddings"
    prefix: str = Field(default="", description="Of request ids, which one store takes once.")
    texts: list[str] = Field(min_length=1, description="Taken in turn, one a request.")
    rate: float = Field(gt=0, description="Requests a second.")
    seconds: float = Field(gt=0)
    arrivals: Arrivals = "constant"
    seed: int = 0
    patience_s: float = Field(default=30.0, gt=0, description="For replies, after the last one.")
    core: int | None = Field(default=None, description="The core that the client stays on.")


class Reply(BaseModel):
    """What became of one request.

    Attributes:
        at_s: when it was due, from the start.
        lag_ms: how late it was sent.
        latency_ms: from when it was due to the end of the reply; None without one.
        status: of HTTP; 0 without a reply.
        problem: what is wrong with the reply, empty if nothing.
        retry_after: whether a refusal said in how many seconds to come again, one or more.
        arm: of a deployment that answered, if the route has any.
    """

    at_s: float
    lag_ms: float = 0.0
    latency_ms: float | None = None
    status: int = 0
    problem: str = ""
    retry_after: bool = False
    arm: str | None = None


def due_times(plan: LoadPlan) -> list[float]:
    """When each request is due, in seconds from the start."""
    count = max(1, round(plan.rate * plan.seconds))
    if plan.arrivals == "constant":
        return [number / plan.rate for number in range(count)]
    gaps = np.random.default_rng(plan.seed).exponential(1.0 / plan.rate, count)
    return [float(at) for at in np.cumsum(gaps) - gaps[0]]


class _Connection:
    """One kept-alive connection; after each reply nothing more may have come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        self._writer.write(request)
        head = await self._reader.readuntil(_HEAD_ENDS)
        first, *lines = head[: -len(_HEAD_ENDS)].split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, value in (line.split(b":", 1) for line in lines)
        }
        body = await self._reader.readexactly(int(headers.get(b"content-length", b"0")))
        return int(first.split()[1]), headers, body

    @property
    def is_closed(self) -> bool:
        return self._reader.at_eof()

    async def close(self) -> bool:
        """End it; whether bytes came that nobody asked for."""
        more = b""
        with contextlib.suppress(TimeoutError, OSError):
            more = await asyncio.wait_for(self._reader.read(1), timeout=0.05)
        self._writer.close()
        return bool(more)


class Client:
    """Sends a plan's requests and keeps one ``Reply`` for each."""

    def __init__(self, plan: LoadPlan):
        """Lay out the requests; ``run`` sends them."""
        self._plan = plan
        self._free: list[_Connection] = []
        self.replies: list[Reply] = [Reply(at_s=at) for at in due_times(plan)]
        self.seen: Counter[str] = Counter()
        self.began_at = 0.0

    async def run(self) -> None:
        """Send everything on time; return when all replied or patience ended."""
        began = time.perf_counter()
        self.began_at = time.time()
        tasks = []
        for number, reply in enumerate(self.replies):
            wait_s = began + reply.at_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            reply.lag_ms = (time.perf_counter() - began - reply.at_s) * 1e3
            tasks.append(asyncio.create_task(self._send(number, reply, began)))
        _, late = await asyncio.wait(tasks, timeout=self._plan.patience_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        more = await asyncio.gather(*(connection.close() for connection in self._free))
        self.seen[UNASKED] += 1 + sum(more)

    async def _send(self, number: int, reply: Reply, began: float) -> None:
        connection = None
        while self._free and connection is None:
            idle = self._free.pop()
            connection = None if idle.is_closed else idle  # servers end what idles for long
        try:
            if connection is None:
                connection = _Connection(
                    *await asyncio.open_connection(self._plan.host, self._plan.port)
                )
            status, headers, body = await connection.ask(self._request(number))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            reply.problem = type(error).__name__
            return
        reply.latency_ms = (time.perf_counter() - began - reply.at_s) * 1e3
        reply.status = status
        reply.retry_after = int(headers.get(b"retry-after", b"0")) >= 1
        said = headers.get(b"x-request-id", b"").decode()
        self.seen[said] += 1
        asked = f"{self._plan.prefix}{number}"
        if self._plan.path == ANALYZE:
            reply.problem, reply.arm = wrong_analysis(asked, said, status, body)
        else:
            reply.problem = wrong_reply(asked, said, status, body)
        self._free.append(connection)

    def _request(self, number: int) -> bytes:
        text = self._plan.texts[number % len(self._plan.texts)]
        name = f"{self._plan.prefix}{number}"
        said: dict[str, Any] = {"input": text, "encoding_format": "base64"}
        if self._plan.path == ANALYZE:
            said = {"reviews": [{"text": text}], "unit": name}
        body = orjson.dumps(said)
        return (
            f"POST {self._plan.path} HTTP/1.1\r\nHost: {self._plan.host}\r\n"
            f"Content-Type: application/json\r\nX-Request-Id: {name}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


def wrong_reply(number: str, said: str, status: int, body: bytes) -> str:
    """What is wrong with a reply, empty if nothing: another's, or not one vector."""
    if said != number:
        return f"the reply is to request {said!r}"
    if status != 200:  # noqa: PLR2004  # HTTP
        return ""
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        data = orjson.loads(body)["data"]
        if len(data) == 1 and data[0]["embedding"]:
            return ""
    return "the reply has not one vector"


def wrong_analysis(asked: str, said: str, status: int, body: bytes) -> tuple[str, str | None]:
    """What is wrong with an analysis of one review, empty if nothing; and the arm that answered."""
    if said != asked:
        return f"the reply is to request {said!r}", None
    if status != 200:  # noqa: PLR2004  # HTTP
        return "", None
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        results = orjson.loads(body)["results"]
        if len(results) == 1 and results[0]["status"] == "ok":
            return "", results[0]["arm"]
    return "the reply has not one prediction", None


def account(replies: Sequence[Reply], seen: Counter[str], *, cpu_share: float) -> dict[str, Any]:
    """Counts and percentiles of one stretch of load."""
    latencies = [
        reply.latency_ms
        for reply in replies
        if reply.status == 200 and reply.latency_ms  # noqa: PLR2004
    ]
    statuses = Counter(str(reply.status) for reply in replies)
    refused = [reply for reply in replies if reply.status == 429]  # noqa: PLR2004
    return {
        "sent": len(replies),
        "answered": len(latencies),
        "statuses": dict(statuses),
        "lost": statuses["0"],
        "duplicated": sum(times - 1 for times in seen.values()),
        "wrong": sum(1 for reply in replies if reply.status and reply.problem),
        "refused": len(refused),
        "refused_with_retry_after": sum(reply.retry_after for reply in refused),
        "error_share": 1.0 - len(latencies) / len(replies),
        "p50_ms": float(np.percentile(latencies, 50)) if latencies else None,
        "p99_ms": float(np.percentile(latencies, 99)) if latencies else None,
        "client_cpu_share": cpu_share,
        "lag_p99_ms": float(np.percentile([reply.lag_ms for reply in replies], 99)),
    }


def main(plan_path: str, out: str) -> None:
    """Send a plan's requests and write what became of them."""
    plan = LoadPlan.model_validate_json(Path(plan_path).read_bytes())
    if plan.core is not None:
        os.sched_setaffinity(0, {plan.core})
    client = Client(plan)
    began = time.perf_counter(), time.process_time()
    asyncio.run(client.run())
    share = (time.process_time() - began[1]) / (time.perf_counter() - began[0])
    answer = {
        "began_at": client.began_at,
        "totals": account(client.replies, client.seen, cpu_share=share),
        "replies": [reply.model_dump() for reply in client.replies],
    }
    Path(out).write_bytes(orjson.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
