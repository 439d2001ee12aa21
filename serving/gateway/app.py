"""The HTTP API: routes, their documentation, and the command that serves them.

    python -m serving.gateway.app --deployment var/run/deployment.json

``POST /v1/analyze`` and ``POST /v1/feedback`` read their bodies themselves, so that size is counted
while bytes arrive and one bad review never fails the others; what they do is in answering.py.
"""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from data.contract import CONTRACT_VERSION
from data.errors import MatjipError
from data.privacy import mask_text
from serving.deployment import Deployment, read_deployment
from serving.gateway.answering import Gateway
from serving.gateway.limits import Refusal, error_answer, json_answer
from serving.gateway.middleware import RequestScope
from serving.gateway.schemas import (
    ANALYZE_EXAMPLES,
    FEEDBACK_EXAMPLES,
    AnalyzeOut,
    ErrorAnswer,
    FeedbackIn,
    FeedbackOut,
    ReadyOut,
    analyze_request_schema,
)
from serving.gateway.settings import ServingSettings, read_settings

_TURNED_AWAY: Final = frozenset({408, 413, 429, 503})
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
_ERRORS: Final = {
    400: "Not JSON, not UTF-8, or a bad X-Request-Id.",
    404: "No such answer.",
    409: "An id was used before for something else.",
    413: "The body is too large.",
    422: "A field is missing, unknown or out of range.",
    429: "Too many requests wait; see Retry-After.",
    503: "Not ready, or the store or the engine refused; see Retry-After.",
}


def create_app(
    settings: ServingSettings, deployment: Deployment, *, mask: Callable[[str], str] = str
) -> FastAPI:
    """The gateway of one deployment.

    Args:
        settings: limits, threads and the store's URL.
        deployment: the arms; each one's folder is loaded when the app starts.
        mask: applied to every text before anything else sees it.
    """
    gateway = Gateway(settings, deployment, mask)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.stop()

    app = FastAPI(
        title="matjip",
        version=CONTRACT_VERSION,
        summary="Sentiment, intensity, emotions and aspects of Korean restaurant reviews.",
        lifespan=lifespan,
    )
    app.add_middleware(RequestScope, metrics=gateway.metrics)
    _add_error_handlers(app, gateway)
    _add_answers(app, gateway, settings)
    _add_health(app, gateway)
    return app


def _add_answers(app: FastAPI, gateway: Gateway, settings: ServingSettings) -> None:
    @app.post(
        "/v1/analyze",
        summary="Analyse one or many reviews",
        response_model=AnalyzeOut,
        responses=_errors(400, 409, 413, 422, 429, 503),
        openapi_extra=_body(analyze_request_schema(settings.max_reviews), ANALYZE_EXAMPLES),
    )
    async def analyze(request: Request) -> Response:
        """Each review is answered or refused by itself; the answer is sent once it is recorded."""
        return await gateway.analyze(request)

    @app.post(
        "/v1/feedback",
        summary="Say how an answer turned out",
        response_model=FeedbackOut,
        responses=_errors(400, 404, 409, 413, 422, 503),
        openapi_extra=_body(FeedbackIn.model_json_schema(), FEEDBACK_EXAMPLES),
    )
    async def feedback(request: Request) -> Response:
        """May come late, twice or out of order; of several for one answer the latest counts."""
        return await gateway.feedback(request)


def _add_health(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health", summary="Whether the process lives")
    async def health() -> Response:
        return json_answer({"status": "ok"})

    @app.get(
        "/ready",
        summary="Whether it may get traffic",
        response_model=ReadyOut,
        responses={503: {"model": ReadyOut, "description": "It may not; reasons say why."}},
    )
    async def ready() -> Response:
        reasons = gateway.reasons()
        deployment = gateway.deployment
        answer = {
            "ready": not reasons,
            "reasons": reasons,
            "experiment_id": deployment.experiment_id,
            "deployment_id": deployment.deployment_id,
            "arms": [
                {
                    "name": arm.name,
                    "model": {"name": arm.model_name, "version": arm.version},
                    "share": arm.share,
                }
                for arm in deployment.arms
            ],
        }
        return json_answer(answer, 503 if reasons else 200)

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        return Response(gateway.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_error_handlers(app: FastAPI, gateway: Gateway) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        code, field = _CODES.get(error.status_code, "refused"), None
        if isinstance(error, Refusal):
            code, field = error.code, error.field
        gateway.metrics.errors.labels(code).inc()
        if error.status_code in _TURNED_AWAY:
            gateway.metrics.rejected.labels(code).inc()
        return error_answer(
            error.status_code,
            code,
            str(error.detail),
            request.state.request_id,
            field=field,
            headers=dict(error.headers or {}),
        )

    async def not_valid(request: Request, _error: Exception) -> Response:
        return error_answer(
            422, "invalid_request", "the request is not valid; see /docs", request.state.request_id
        )

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, not_valid)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer, "description": _ERRORS[status]} for status in statuses}


def _body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def main(
    deployment: Annotated[Path, typer.Option(help="Deployment file, as the deploy step wrote it.")],
    host: Annotated[str | None, typer.Option(help="Else MATJIP_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Else MATJIP_PORT, else 8080.")] = None,
) -> None:
    """Serve a deployment until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    given = {"MATJIP_HOST": host, "MATJIP_PORT": None if port is None else str(port)}
    environment = dict(os.environ) | {
        name: said for name, said in given.items() if said is not None
    }
    try:
        settings = read_settings(environment)
        deployed = read_deployment(deployment)
        app = create_app(settings, deployed, mask=lambda text: mask_text(text)[0])
    except MatjipError as error:
        raise SystemExit(str(error)) from error
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
    )


if __name__ == "__main__":
    typer.run(main)
