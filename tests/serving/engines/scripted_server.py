"""A server that says what it is told to, and scenes of an engine that asks it.

Loaded by path (`runpy.run_path`): tests are no package.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from serving.engines.chat import ChatAnswer, ChatRequest
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
    connections: int = 0
    inside: int = 0
    most_inside: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
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
