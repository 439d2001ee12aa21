"""The server behind one language arm, asked only what is on the list, and given up on in time.

What goes wrong there reaches a caller as one of four codes, always with a Retry-After: unreachable,
timeout, failed (it says so itself) or garbage. After several in a row the arm is not asked for a
while: a server that is down must not hold every caller until the time-out.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Literal

import httpx
import orjson
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    wait_exponential_jitter,
)

from serving.engines.openai_api import IDLE_S
from serving.gateway.limits import Refusal
from serving.gateway.settings import ServingSettings
from serving.language_deployment import OpenAIEndpoint

UpstreamPath = Literal["/v1/chat/completions", "/v1/completions", "/v1/models", "/health"]
"""All that is ever asked of a language model's server: its other endpoints manage it."""

State = Literal["up", "down", "model_missing"]
BREAKER: Final = "upstream"
FAILURES_IN_A_ROW: Final = 5
PAUSE_S: Final = 5.0
EVENT_STREAM: Final = "text/event-stream"
_MOST_BYTES: Final = 16_777_216
_HEALTH_TIMEOUT_S: Final = 0.7
"""Kubernetes gives a readiness probe one second; a server that hangs must not fail ours."""
_REPLACED_ATTEMPTS: Final = 4
"""How often a server that has not our model is asked: an adapter that is being replaced
(VllmServerEngine.load_adapter) is gone for a moment, and nobody has worked on the request."""
_CONNECTION_RETRIES: Final = 2
_CALLERS_FAULT: Final = frozenset({400, 413, 422})
_SHOWN: Final = 500


class Upstream:
    """One server, over a connection pool of its own. Used from one event loop."""

    def __init__(self, endpoint: OpenAIEndpoint, settings: ServingSettings):
        """Connect to nothing yet."""
        self._endpoint = endpoint
        self._settings = settings
        self._client = httpx.AsyncClient(
            base_url=endpoint.base_url,
            timeout=httpx.Timeout(settings.language_timeout_s, connect=settings.upstream_connect_s),
            # In a burst, on busy cores, a connection may take longer than its time: one that did
            # not come to be has asked for nothing, and may be tried again.
            transport=httpx.AsyncHTTPTransport(
                retries=_CONNECTION_RETRIES,
                limits=httpx.Limits(
                    max_connections=settings.max_language_requests, keepalive_expiry=IDLE_S
                ),
                trust_env=False,
            ),
            headers={"Accept-Encoding": "identity"} | _bearer(settings.upstream_api_key),
            trust_env=False,
        )
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=FAILURES_IN_A_ROW,
            default_ttl=PAUSE_S,
            exclude=[(Refusal, _is_callers_fault), asyncio.CancelledError],
        )

    async def ask(self, path: UpstreamPath, body: dict[str, Any]) -> bytes:
        """The whole answer, which is JSON with ``choices``.

        Args:
            path: which route.
            body: OpenAI's, its model left to this arm.

        Raises:
            Refusal: the server refused, failed, was late, or said what is no answer.
        """
        async with self._watched(), asyncio.timeout(self._settings.language_timeout_s):
            response = await self._send(path, body)
            async with aclosing(response):
                content = await _content(response)
                _refuse_unless_ok(response, content)
            if not isinstance(_json(content).get("choices"), list):
                raise _down("upstream_garbage", "the model's server said what is no answer")
            return content

    async def open_stream(self, path: UpstreamPath, body: dict[str, Any]) -> httpx.Response:
        """An answer that has begun to stream; the caller closes it.

        Raises:
            Refusal: as ``ask``.
        """
        timeout = httpx.Timeout(
            self._settings.upstream_idle_s, connect=self._settings.upstream_connect_s
        )
        async with self._watched(), asyncio.timeout(self._settings.language_timeout_s):
            response = await self._send(path, body, timeout)
            try:
                await _refuse_unless_stream(response)
            except BaseException:
                await response.aclose()
                raise
            return response

    async def events(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """A stream's bytes as they come; one that breaks off or never ends says so, and ends."""
        deadline = time.monotonic() + self._settings.language_timeout_s
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
                if time.monotonic() > deadline:
                    yield _broken("upstream_timeout", "the answer took too long and was cut off")
                    return
        except httpx.HTTPError as error:
            yield _broken("upstream_failed", f"the answer broke off ({type(error).__name__})")

    async def state(self) -> State:
        """Whether the server lives, and has the model."""
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                health = await self._get("/health")
                models = await self._get("/v1/models")
        except (httpx.HTTPError, TimeoutError):
            return "down"
        if health.status_code != httpx.codes.OK or models.status_code != httpx.codes.OK:
            return "down"
        listed = _json(models.content).get("data")
        models_there = listed if isinstance(listed, list) else []
        names = [each.get("id") for each in models_there if isinstance(each, dict)]
        return "up" if self._endpoint.model in names else "model_missing"

    async def close(self) -> None:
        """Let go of every connection."""
        await self._client.aclose()

    async def _send(
        self, path: UpstreamPath, body: dict[str, Any], timeout: httpx.Timeout | None = None
    ) -> httpx.Response:
        """The server's answer as it begins; the caller closes it."""
        asking = AsyncRetrying(
            retry=retry_if_result(_has_not_our_model),
            stop=stop_after_attempt(_REPLACED_ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=0.2, jitter=0.1),
            before_sleep=_let_go,
            retry_error_callback=_last_answer,
        )
        response: httpx.Response = await asking(self._send_once, path, body, timeout)
        return response

    async def _send_once(
        self, path: UpstreamPath, body: dict[str, Any], timeout: httpx.Timeout | None
    ) -> httpx.Response:
        request = self._client.build_request(
            "POST",
            path,
            json=body | {"model": self._endpoint.model},
            timeout=timeout or self._client.timeout,
        )
        return await self._client.send(request, stream=True)

    async def _get(self, path: UpstreamPath) -> httpx.Response:
        return await self._client.get(path)

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Counts what fails inside, and lets nobody in while the server is left alone."""
        try:
            async with await self._breakers.get_breaker(BREAKER):
                yield
        except OpenedState as error:
            # purgatory raises one object again and again, which would gather every caller's frames.
            error.__traceback__ = None
            raise _down(
                "upstream_unreachable",
                f"the model's server failed {FAILURES_IN_A_ROW} times in a row and is left alone "
                f"for {PAUSE_S:g} s",
            ) from None
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _down("upstream_timeout", "the model's server did not answer in time") from error
        except httpx.HTTPError as error:
            raise _down(
                "upstream_unreachable",
                f"the model's server cannot be reached ({type(error).__name__})",
            ) from error


def _bearer(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _has_not_our_model(response: httpx.Response) -> bool:
    return response.status_code == httpx.codes.NOT_FOUND


async def _let_go(state: RetryCallState) -> None:
    if state.outcome is not None:
        await state.outcome.result().aclose()


def _last_answer(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None


def _is_callers_fault(error: BaseException) -> bool:
    return isinstance(error, Refusal) and error.status_code != httpx.codes.SERVICE_UNAVAILABLE


def _down(code: str, message: str) -> Refusal:
    return Refusal(503, code, f"{message}; try again in a moment", retry_after_s=int(PAUSE_S))


async def _content(response: httpx.Response) -> bytes:
    chunks, seen = [], 0
    async for chunk in response.aiter_bytes():
        seen += len(chunk)
        if seen > _MOST_BYTES:
            raise _down("upstream_garbage", f"the model's server said over {_MOST_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_unless_ok(response: httpx.Response, content: bytes) -> None:
    """Pass on what the caller can mend; what only we can is a 503."""
    status = response.status_code
    if status == httpx.codes.OK:
        return
    if status == httpx.codes.TOO_MANY_REQUESTS:
        raise Refusal(429, "too_many_requests", "the model is busy; try again", retry_after_s=1)
    if status not in _CALLERS_FAULT:
        raise _down("upstream_failed", f"the model's server answered {status}")
    said = _json(content)
    error = said.get("error", said)
    message = error.get("message") if isinstance(error, dict) else None
    shown = message[:_SHOWN] if isinstance(message, str) else "no reason given"
    raise Refusal(status, "upstream_refused", f"the model's server refused: {shown}")


async def _refuse_unless_stream(response: httpx.Response) -> None:
    if response.status_code != httpx.codes.OK:
        _refuse_unless_ok(response, await _content(response))
    if not response.headers.get("Content-Type", "").startswith(EVENT_STREAM):
        raise _down("upstream_garbage", "the model's server said what is no stream")


def _broken(code: str, message: str) -> bytes:
    """An error, where the status line has long been sent."""
    said = orjson.dumps({"error": {"code": code, "message": message}})
    return b"\n\ndata: " + said + b"\n\n"
