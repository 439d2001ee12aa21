"""What the gateway refuses, and how it says so: bodies too large or too slow, too many requests."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import orjson
from fastapi import HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from serving.gateway.schemas import ErrorAnswer, ErrorOut

JSON: Final = "application/json"
_DISCARD_FACTOR: Final = 16
"""A body that is too large is read on and thrown away up to this many limits: a caller who is still
sending when the connection closes never sees the answer."""


class Refusal(HTTPException):
    """An answer that is not a success. ``code`` is stable; ``message`` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
    ):
        """See ``error_answer`` for what is sent."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        super().__init__(status, detail=message, headers=headers)
        self.code = code
        self.field = field


def error_answer(
    status: int,
    code: str,
    message: str,
    request_id: str,
    *,
    field: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The one shape of every error: {"error": {code, message, field?, request_id}}."""
    body = ErrorAnswer(
        error=ErrorOut(code=code, message=message, field=field, request_id=request_id)
    )
    content = orjson.dumps(body.model_dump(exclude_none=True))
    return Response(content, status, headers, JSON)


def json_answer(value: object, status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(orjson.dumps(value), status, media_type=JSON)


async def read_json(request: Request, *, max_bytes: int, timeout_s: float) -> object:
    """The request's body as JSON, counted while it streams in.

    Raises:
        Refusal: 413 too large (declared or not), 408 too slow, 400 not UTF-8 or not JSON.
    """
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read_body(request, max_bytes)
    except ClientDisconnect as error:
        raise Refusal(400, "body_cut_short", "the caller hung up before the body ended") from error
    except TimeoutError as error:
        raise Refusal(
            408, "body_timeout", f"the body did not arrive in {timeout_s:g} s; send it again"
        ) from error
    if body is None:
        raise Refusal(
            413,
            "body_too_large",
            f"the body is larger than {max_bytes} bytes; send fewer or shorter texts",
        )
    try:
        body.decode("utf-8")
        return orjson.loads(body)
    except UnicodeDecodeError as error:
        raise Refusal(
            400,
            "invalid_utf8",
            f"the body is not UTF-8 at byte {error.start}; encode it as UTF-8",
        ) from error
    except orjson.JSONDecodeError as error:
        raise Refusal(
            400,
            "invalid_json",
            f"the body is not JSON at line {error.lineno}, column {error.colno}; mend it there",
        ) from error


async def _read_body(request: Request, max_bytes: int) -> bytes | None:
    """The body, or None if it is larger than ``max_bytes``; never more than that is kept."""
    declared = request.headers.get("content-length", "")
    too_large = declared.isdecimal() and int(declared) > max_bytes
    chunks: list[bytes] = []
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > max_bytes:
            too_large = True
            chunks.clear()
        if not too_large:
            chunks.append(chunk)
        if seen > max_bytes * _DISCARD_FACTOR:
            break
    return None if too_large else b"".join(chunks)


class Admission:
    """Counts the requests inside; used only from the event loop, so it needs no lock."""

    def __init__(self, most: int):
        """Let at most ``most`` requests in at once."""
        self.most = most
        self.inside = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            Refusal: 429, there is none.
        """
        if self.inside >= self.most:
            raise Refusal(
                429,
                "too_many_requests",
                f"{self.inside} requests are being worked on or wait; try again in a second",
                retry_after_s=1,
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
