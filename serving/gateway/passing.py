"""OpenAI's API passed on to a unit's arm: what is sent there, and how its answer comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Final

import httpx
import orjson
from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from data.manifest import canonical_digest
from serving.gateway.in_process import answer_chat, as_events
from serving.gateway.language_schemas import UNIT_HEADER, ChatIn, CompletionIn
from serving.gateway.limits import JSON, Refusal
from serving.gateway.output_form import keeps_its_form, tokens_of
from serving.gateway.record import Record
from serving.gateway.turns import Turn, sha256
from serving.gateway.upstream import EVENT_STREAM, Upstream, UpstreamPath

_MOST_UNIT: Final = 500
_ARMS_FAULT: Final = frozenset({429, 503})
"""Of an arm that was asked: it is busy, or away, late, failing or talking nonsense."""


async def pass_on(
    asked: ChatIn | CompletionIn,
    path: UpstreamPath,
    turn: Turn,
    *,
    record: Record,
    inside: ExitStack,
    timeout_s: float,
) -> Response:
    """The arm's answer; its exposure is committed before the first byte is sent.

    Args:
        asked: masked.
        path: which of OpenAI's routes.
        turn: of this request.
        record: where exposures go.
        inside: what holds the request's place; a stream takes it along until it ends.
        timeout_s: for an engine in this process.

    Raises:
        Refusal: the arm cannot answer, or the exposure cannot be stored.
    """
    body = asked.model_dump(exclude_unset=True, exclude={"user", "model"})
    said = canonical_digest([path, body])
    upstream = turn.loaded.upstream
    if upstream is None or not asked.stream:
        content = await answer(asked, path, turn, record=record, timeout_s=timeout_s)
        return Response(content, 200, turn.headers(), EVENT_STREAM if asked.stream else JSON)
    facts: dict[str, Any] = {"task": path, "streamed": True}
    async with failures_recorded(turn, said, record):
        stream = await upstream.open_stream(path, body)
    try:
        # How many tokens it takes is known once it has ended, and the exposure must be there first.
        await record.commit(exposures=[turn.exposure(said, facts, at_us=record.now_us())])
    except BaseException:
        await stream.aclose()
        raise
    return _Relay(upstream, stream, turn.headers(), inside.pop_all())


async def answer(
    asked: ChatIn | CompletionIn,
    path: UpstreamPath,
    turn: Turn,
    *,
    record: Record,
    timeout_s: float,
) -> bytes:
    """The arm's whole answer, its exposure committed; arguments and errors as of ``pass_on``."""
    body = asked.model_dump(exclude_unset=True, exclude={"user", "model"})
    said = canonical_digest([path, body])
    upstream = turn.loaded.upstream
    async with failures_recorded(turn, said, record):
        if upstream is None:
            completion = await _in_process(asked, turn, timeout_s)
            content = _written(completion, asked)
        else:
            content = await upstream.ask(path, body)
            completion = orjson.loads(content)
    shown = turn.exposure(
        said,
        {"task": path, "streamed": asked.stream, "answer_sha256": sha256(content)},
        at_us=record.now_us(),
        status="ok" if keeps_its_form(asked, completion) else "degraded",
        tokens=tokens_of(completion),
    )
    await record.commit(exposures=[shown])
    return content


@asynccontextmanager
async def failures_recorded(turn: Turn, said: str, record: Record) -> AsyncIterator[None]:
    """Store what the arm could not answer, before its caller learns of it.

    What is the caller's own mistake is none of the arm's. Where the store refuses too, the caller
    learns of the arm's failure alone.
    """
    try:
        yield
    except Refusal as refusal:
        if refusal.status_code in _ARMS_FAULT:
            facts = {"task": turn.route, "error": refusal.code}
            failed = turn.exposure(said, facts, at_us=record.now_us(), status="failed")
            with suppress(Refusal):
                await record.commit(exposures=[failed])
        raise


def unit_of_header(headers: Headers) -> str | None:
    """Who asks, as the header says it: UTF-8, which HTTP itself does not promise.

    Raises:
        Refusal: 422, it is empty, too long or not UTF-8.
    """
    given = headers.get(UNIT_HEADER)
    if given is None:
        return None
    try:
        unit = given.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        unit = ""
    if not 1 <= len(unit) <= _MOST_UNIT:
        raise Refusal(
            422,
            "invalid_unit",
            f"{UNIT_HEADER}: send 1 to {_MOST_UNIT} characters of UTF-8, or leave it out",
            field=UNIT_HEADER,
        )
    return unit


def masked(asked: ChatIn | CompletionIn, mask: Callable[[str], str]) -> ChatIn | CompletionIn:
    """The same with personal data masked, in every turn and prompt."""
    if isinstance(asked, CompletionIn):
        prompt = asked.prompt
        hidden = mask(prompt) if isinstance(prompt, str) else [mask(each) for each in prompt]
        return asked.model_copy(update={"prompt": hidden})
    messages = []
    for message in asked.messages:
        content = message.content
        if isinstance(content, str):
            covered: Any = mask(content)
        else:
            covered = [each.model_copy(update={"text": mask(each.text)}) for each in content]
        messages.append(message.model_copy(update={"content": covered}))
    return asked.model_copy(update={"messages": messages})


async def _in_process(asked: ChatIn | CompletionIn, turn: Turn, timeout_s: float) -> dict[str, Any]:
    try:
        async with asyncio.timeout(timeout_s):
            return await answer_chat(
                turn.loaded.engine,
                asked,
                request_id=turn.request_id,
                model=turn.loaded.arm.model_name,
            )
    except TimeoutError as error:
        raise Refusal(
            503, "engine_timeout", f"no answer within {timeout_s:g} s", retry_after_s=5
        ) from error


def _written(completion: dict[str, Any], asked: ChatIn | CompletionIn) -> bytes:
    if asked.stream:
        options = asked.stream_options
        return as_events(completion, with_usage=options is not None and options.include_usage)
    return orjson.dumps(completion)


class _Relay(StreamingResponse):
    """A stream passed on as it comes. Whatever ends it, the server is told, and the place is free.

    A generator's own ``finally`` would not do: where the caller is gone before the first byte, the
    generator never starts.
    """

    def __init__(
        self,
        upstream: Upstream,
        stream: httpx.Response,
        headers: dict[str, str],
        place: ExitStack,
    ):
        super().__init__(upstream.events(stream), 200, headers, EVENT_STREAM)
        self._stream = stream
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._place.close()
            await self._stream.aclose()
