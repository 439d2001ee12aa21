"""vLLM over its OpenAI API: every prompt an answer or a reason, whatever the server does.

A prompt is asked again only where nobody can have worked on it: no connection, 404 (an adapter that
is being replaced), 429, 502, 503, 504.
A server that fails several times in a row is left alone for a while (purgatory's circuit breaker),
so that callers hear at once that it is down. Requests at once are bounded.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from data.errors import EngineError, SettingsError
from data.prompts import Message
from serving.engines.chat import ChatAnswer, ChatRequest
from serving.engines.openai_api import (
    IDLE_S,
    ServerError,
    named_errors,
    not_ok,
    read_completion,
    read_models,
    read_tokens,
)

CHAT: Final = "/v1/chat/completions"
_HEALTH_TIMEOUT_S: Final = 2.0
_SPARE_CONNECTIONS: Final = 4
_LONGEST_WAIT_S: Final = 10.0


@dataclass(frozen=True)
class Patience:
    """How long and how often a server is asked.

    Attributes:
        timeout_s: for one whole answer.
        connect_s: for a connection.
        attempts: of one prompt, the first included.
        backoff_s: upper end of the first wait; later ones double, and each is drawn at random.
        failures: in a row, after which the server is left alone.
        pause_s: for how long.
    """

    timeout_s: float = 120.0
    connect_s: float = 3.0
    attempts: int = 3
    backoff_s: float = 0.5
    failures: int = 5
    pause_s: float = 10.0


class VllmServerEngine:
    """Answers prompts with one model, or one adapter, of a server."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 64,
        patience: Patience | None = None,
    ):
        """Connect to nothing yet.

        Args:
            base_url: the server's root, http://host:port, /v1 left out or not.
            model: what the server calls the model or the adapter.
            api_key: if the server wants one; never shown.
            concurrency: most requests at once; more wait their turn here.
            patience: how long and how often it is asked.

        Raises:
            SettingsError: the address or the number is none.
        """
        self._root = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
        if not self._root.startswith(("http://", "https://")) or concurrency < 1:
            raise SettingsError(
                f"base_url={base_url!r}, concurrency={concurrency!r}: no server can be asked so; "
                "write http://host:port, and at least 1"
            )
        self.name = f"vllm {model}"
        self._model = model
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._concurrency = concurrency
        self._patience = patience or Patience()
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=self._patience.failures,
            default_ttl=self._patience.pause_s,
            exclude=[(ServerError, _is_no_fault), asyncio.CancelledError],
        )
        self._loop: asyncio.AbstractEventLoop | None = None

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See ``ChatEngine.complete``."""
        return list(await asyncio.gather(*(self._complete_one(each) for each in requests)))

    async def models(self) -> list[str]:
        """What the server can be asked for: its model, and the adapters that are loaded.

        Raises:
            EngineError: it does not say.
        """
        return read_models(await self._manage("GET", "/v1/models"))

    async def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """A prompt's tokens, as the server reads it with its own tokenizer and chat template.

        Raises:
            EngineError: it does not say, or does not know the model.
        """
        body = {"model": self._model, "messages": list(messages)}
        return read_tokens(await self._manage("POST", "/tokenize", body))

    async def health(self) -> bool:
        """Whether the server says that it is well; asked whatever the circuit breaker thinks."""
        try:
            await self._manage("GET", "/health", timeout_s=_HEALTH_TIMEOUT_S)
        except EngineError:
            return False
        return True

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Have the server answer to ``name`` with an adapter, without a restart.

        One that has the name is forgotten as soon as the new one is known to load. For a moment
        nobody has it, and who asks is told 404 and asks again; answers under way end as they began.
        vLLM 0.32's own load_inplace has no such moment, but reads the adapter from disk at every
        step from then on (and dies where the folder is gone), and changes answers under way.

        Args:
            name: under which it is asked for; one that is loaded is replaced.
            folder: as the server sees it. Check it first: serving/adapter_folder.py.

        Raises:
            EngineError: the server refused; adapters may be managed only if it was started so.
        """
        trial, there = f"{name}.next", await self.models()
        if trial in there:  # whoever tried before was cut short
            await self.unload_adapter(trial)
        if name in there:
            await self._load_adapter(trial, folder)
            await self.unload_adapter(trial)
            await self.unload_adapter(name)
        await self._load_adapter(name, folder)

    async def unload_adapter(self, name: str) -> None:
        """Have the server forget an adapter.

        Raises:
            EngineError: it knows none of that name.
        """
        await self._manage("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    async def _load_adapter(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder)}
        await self._manage("POST", "/v1/load_lora_adapter", body)

    async def aclose(self) -> None:
        """Let go of every connection."""
        if self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._loop = None

    async def _complete_one(self, request: ChatRequest) -> ChatAnswer:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, ServerError) and error.again),
            stop=stop_after_attempt(self._patience.attempts),
            wait=self._wait_s,
            reraise=True,
        )
        try:
            async with self._slot():
                answer: ChatAnswer = await retrying(self._ask, request)
        except EngineError as error:
            return ChatAnswer("", "error", error=str(error))
        return answer

    async def _ask(self, request: ChatRequest) -> ChatAnswer:
        body = self._body(request)
        async with self._watched():
            async with asyncio.timeout(self._patience.timeout_s):
                response = await self._client.post(CHAT, content=body)
            if response.status_code != httpx.codes.OK:
                raise not_ok(response)
            return read_completion(response.content, constrained=request.schema is not None)

    def _body(self, request: ChatRequest) -> bytes:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": list(request.messages),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        if request.seed is not None:
            body["seed"] = request.seed
        if request.schema is not None:
            form = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        try:
            return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise ServerError(
                f"the request is no JSON: {error}; send plain values", refused=True
            ) from error

    async def _manage(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """Ask for what is no answer of the model: past the queue and the circuit breaker."""
        self._connect()
        longest = timeout_s or self._patience.timeout_s
        async with named_errors(longest), asyncio.timeout(longest):
            response = await self._client.request(method, path, json=body)
        if response.status_code != httpx.codes.OK:
            raise not_ok(response)
        return response.content

    def _connect(self) -> None:
        """Make a client, once an event loop: connections belong to the loop that made them.

        An evaluation may run several loops, one after another.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        self._loop = loop
        self._places = asyncio.Semaphore(self._concurrency)
        self._client = httpx.AsyncClient(
            base_url=self._root,
            headers=self._headers,
            timeout=httpx.Timeout(None, connect=self._patience.connect_s),
            limits=httpx.Limits(
                max_connections=self._concurrency + _SPARE_CONNECTIONS, keepalive_expiry=IDLE_S
            ),
            trust_env=False,
        )

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """A place among the requests that run at once."""
        self._connect()
        async with self._places:
            yield

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Counts the server's failures, names them, and lets nobody in while it is left alone."""
        try:
            async with (
                await self._breakers.get_breaker("vllm"),
                named_errors(self._patience.timeout_s),
            ):
                yield
        except OpenedState as error:
            # purgatory raises one object again and again, which would gather every caller's frames.
            error.__traceback__ = None
            raise ServerError(
                f"vLLM failed {self._patience.failures} times in a row and is left alone for "
                f"{self._patience.pause_s:g} s; ask later, and look at its log"
            ) from None

    def _wait_s(self, state: RetryCallState) -> float:
        drawn = wait_random_exponential(self._patience.backoff_s, max=_LONGEST_WAIT_S)(state)
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_s if isinstance(error, ServerError) else 0.0
        return drawn + min(asked, _LONGEST_WAIT_S)


def served_models(base_url: str, api_key: str | None = None) -> list[str]:
    """What a server can be asked for, from outside an event loop.

    Raises:
        EngineError: it does not say.
        SettingsError: the address is none.
    """

    async def ask() -> list[str]:
        engine = VllmServerEngine(base_url, "", api_key=api_key)
        try:
            return await engine.models()
        finally:
            await engine.aclose()

    return asyncio.run(ask())


def _is_no_fault(error: BaseException) -> bool:
    return isinstance(error, ServerError) and error.refused
