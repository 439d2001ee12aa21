"""Around every request: its id, its time, and a clear answer where something unforeseen happens."""

import logging
import re
import time
import traceback
import uuid
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.limits import error_answer
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.schemas import REQUEST_ID_PATTERN

HEADER: Final = "X-Request-Id"
ROUTES: Final = frozenset(
    {
        "/v1/analyze",
        "/v1/embeddings",
        "/v1/feedback",
        "/v1/summary",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/experiments",
        "/v1/routes",
        "/v1/ledger",
        "/experiments",
        "/health",
        "/ready",
        "/metrics",
    }
)
_REQUEST_ID: Final = re.compile(REQUEST_ID_PATTERN)
_log = logging.getLogger(__name__)


class RequestScope:
    """Gives each request an id (the caller's or a new one), sends it back, and takes the time."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics):
        """Wrap ``app``."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # Any path may be asked for; as a label each would be a series of its own.
        route = scope["path"] if scope["path"] in ROUTES else "other"
        given = Headers(scope=scope).get(HEADER)
        fits = given is None or _REQUEST_ID.fullmatch(given) is not None
        request_id = given if given is not None and fits else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                MutableHeaders(scope=message)[HEADER] = request_id
                took_s = time.perf_counter() - started
                self._metrics.count_request(route, message["status"], took_s)
            await send(message)

        if not fits:
            refusal = error_answer(
                400,
                "invalid_request_id",
                "an X-Request-Id has 1 to 128 of A-Z a-z 0-9 . _ : -; send such a one, or none",
                request_id,
                field=HEADER,
            )
            await refusal(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # the last wall: a caller gets JSON, never a stack trace
            self._metrics.errors.labels("internal").inc()
            # An error's own text may repeat a review, so only its kind and place are logged.
            place = "".join(traceback.format_tb(error.__traceback__))
            _log.error("request %s: unforeseen %s\n%s", request_id, type(error).__name__, place)
            if answered:
                raise
            failed = error_answer(
                500, "internal", "the gateway failed on this request; send it again", request_id
            )
            await failed(scope, receive, send_with_id)
