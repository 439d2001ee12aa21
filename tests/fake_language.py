"""Stand-ins for language models: an engine that knows a few words, a server that may fail, a relay.

And what serves them: an app in a thread, and the gateway in a process of its own.

Loaded by path (`runpy.run_path`): tests are no package.
"""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from data.contract import ASPECTS, KOREAN
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.openai_api import IDLE_S
from serving.language_deployment import LanguageArm, LanguageDeployment

WORDS = {"불친절": "service negative", "친절": "service positive", "맛있": "food positive"}
WORDS |= {"별로": "food negative", "비싸": "price negative", "오픈": "access neutral"}
STATES = {word: state for state, word in KOREAN.items()}
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"%d"}}]}\n\n'


class FakeEngine:
    """Answers by keywords; ``instead`` overrules it for prompts that hold a key."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[Sequence[ChatRequest]] = []
        self.instead: dict[str, Any] = {}

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        self.calls.append(requests)
        return [await self._answer(request.messages[-1]["content"]) for request in requests]

    async def _answer(self, prompt: str) -> ChatAnswer:
        said = next((value for key, value in self.instead.items() if key in prompt), None)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, asyncio.Event):
            await said.wait()
        if isinstance(said, ChatAnswer):
            return said
        return ChatAnswer(said if isinstance(said, str) else keyword_answer(prompt), "stop", 10, 5)


def keyword_answer(prompt: str) -> str:
    """An answer in the form that the prompt's task asks for."""
    task, _, body = prompt.partition("\n")
    numbered = re.findall(r"(?:^|\n| )(.+?) (#\d+)(?= |\n|$)", prompt.partition("]\n")[2])
    if "라벨" in task:
        found = [
            dict(zip(("clause", "aspect", "polarity"), (number, *state.split()), strict=True))
            for text, number in numbered
            for word, state in WORDS.items()
            if word in text and not (word == "친절" and "불친절" in text)
        ]
        states = dict.fromkeys(ASPECTS, "absent") | {e["aspect"]: e["polarity"] for e in found}
        said: Any = {"evidence": found, "aspects": states, "intensity": 0}
        said |= {"sentiment": "neutral", "emotions": []}
    elif "총평" in task:
        said = {"overall": f"{body.count(':')}가지를 말한다"}
    else:
        groups: dict[str, list[str]] = {}
        for text, number in numbered:
            groups.setdefault(STATES[text.split("\n")[-1].split()[0]], []).append(number)
        some = [(state, numbers[:6]) for state, numbers in groups.items()]
        if "강점" in task:
            said = [{"aspect": a, "evidence": n, "claim": f"{KOREAN[a]} 칭찬"} for a, n in some]
            said = {"strengths": said}
        else:
            said = [{"evidence": n, "polarity": p, "text": f"{KOREAN[p]} 의견"} for p, n in some]
            said = {"bullets": said, "sentence": "의견이 모였다"}
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


class FakeServer:
    """OpenAI's API over keywords; ``mode`` is how it fails, ``bodies`` what it was sent.

    ``missing`` of its next answers say that it has no such model.
    """

    def __init__(self) -> None:
        self.mode, self.bodies, self.left, self.app = "ok", [], threading.Event(), FastAPI()
        self.missing, self.callers = 0, set[tuple[str, int]]()
        for path in ("/v1/chat/completions", "/v1/completions"):
            self.app.post(path)(self.answer)
        self.app.get("/health")(lambda: Response(status_code=500 if self.mode == "500" else 200))
        self.app.get("/v1/models")(lambda: {"data": [{"id": "served"}]})

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.callers.add(tuple(request.client or ("", 0)))
        if self.missing:
            self.missing -= 1
            return Response('{"error":{"message":"no such model"}}', 404)
        while self.mode == "slow" and not await request.is_disconnected():
            await asyncio.sleep(0.01)
        if self.mode.isdecimal():
            return Response('{"error":{"message":"no room for 9 tokens"}}', int(self.mode))
        if self.mode == "garbage":
            return Response("<html>oops", media_type="text/html")
        if body.get("stream"):
            return StreamingResponse(self.parts(), media_type="text/event-stream")
        prompt = body["messages"][-1]["content"] if "messages" in body else None
        text = keyword_answer(prompt) if isinstance(prompt, str) else "네"
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "text": text, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        said = {"id": "x", "model": body["model"], "choices": [choice], "usage": usage}
        return Response(json.dumps(said), media_type="application/json")

    async def parts(self) -> AsyncIterator[bytes]:
        try:
            for number in range(3):
                yield DELTA % number
            while self.mode == "stalls":
                await asyncio.sleep(0.01)
            if self.mode == "breaks":
                raise ConnectionError("cut in the middle")
            yield b"data: [DONE]\n\n"
        finally:
            self.left.set()


class Relay:
    """Stands before a real server: ``said`` keeps every body that went there, and its answer."""

    def __init__(self, target: str) -> None:
        self.said: list[tuple[dict[str, Any], bytes]] = []
        limits = httpx.Limits(keepalive_expiry=IDLE_S)
        self._client = httpx.AsyncClient(
            base_url=target, timeout=120, limits=limits, trust_env=False
        )
        self.app = FastAPI(lifespan=self._closing)
        self.app.api_route("/{path:path}", methods=["GET", "POST"])(self.pass_on)

    @asynccontextmanager
    async def _closing(self, _app: FastAPI) -> AsyncIterator[None]:
        yield
        await self._client.aclose()

    async def pass_on(self, request: Request) -> Response:
        body = await request.body()
        kept = {"Content-Type": request.headers.get("content-type", "application/json")}
        try:
            answer = await self._client.request(
                request.method, request.url.path, content=body, headers=kept
            )
        except httpx.HTTPError:
            return Response(status_code=502)
        if body:
            self.said.append((json.loads(body), answer.content))
        kind = answer.headers.get("content-type")
        return Response(answer.content, answer.status_code, media_type=kind)


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """An app on a free port of this machine, in a thread; gives its root."""
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def gateway_command(*options: object) -> list[str]:
    return [sys.executable, "-m", "serving.gateway.app", *map(str, options)]


@contextmanager
def run_gateway(folder: Path, *options: object) -> Iterator[httpx.Client]:
    """The gateway's command, its store and log in this folder; gives a client once it answers."""
    port, log = free_port(), folder / "gateway.log"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MATJIP_STORE_URL": f"sqlite:///{folder / 'store.db'}",
    }
    command = gateway_command(*options, "--port", port)
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            _wait_until_up(client, process, log)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_up(client: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"the gateway did not start:\n{log.read_text()}")


def language_deployment(
    *endpoints: dict[str, Any], answer_tokens: Sequence[int] = (1_024, 1_024), **changes: Any
) -> LanguageDeployment:
    """A champion, and a challenger if there are two endpoints, sharing the units evenly."""
    arms = [
        LanguageArm(
            name=name,
            model_name=f"후기-{name}",
            version="3",
            manifest_digest="ab" * 32,
            evidence_id="e",
            share=1 / len(endpoints),
            endpoint=endpoint,
            max_answer_tokens=most,
        )
        for name, endpoint, most in zip(
            ("champion", "challenger"), endpoints, answer_tokens, strict=False
        )
    ]
    said = {"experiment_id": "language-test", "salt": "a salt for tests", "arms": arms}
    return LanguageDeployment.model_validate(
        said | {"created_at": datetime(2026, 11, 22, tzinfo=UTC)} | changes
    )
