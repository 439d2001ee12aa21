"""The HTTP API: routes, their documentation, and the command that serves them.

    python -m serving.gateway.app --deployment var/run/deployment.json
    python -m serving.gateway.app --embedding-deployment var/run/embedding_deployment.json
    python -m serving.gateway.app --language-deployment var/run/language_deployment.json

It serves sentiment (answering.py), an embedding model (embedding.py), language models
(language.py), or several of them. Routes read their bodies themselves, so that size is counted
while bytes arrive. Files are read again when they change, and on SIGHUP, and
swapped in (reloading.py); who answers everybody is asked of the store (route_watch.py).
"""

import logging
import os
from collections.abc import Callable
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
from serving.embedding_deployment import EmbeddingDeployment, read_embedding_deployment
from serving.gateway.answering import ANALYZE, Gateway
from serving.gateway.embedding_routes import add_embedding
from serving.gateway.experiment_routes import add_experiments
from serving.gateway.feedback import take_feedback
from serving.gateway.language_arms import LoadEngine, load_engine
from serving.gateway.language_routes import add_language
from serving.gateway.limits import Refusal, error_answer, json_answer
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.middleware import RequestScope
from serving.gateway.openapi import error_answers, json_body
from serving.gateway.parts import Parts, make_parts
from serving.gateway.reloading import DeploymentFiles
from serving.gateway.schemas import (
    ANALYZE_EXAMPLES,
    FEEDBACK_EXAMPLES,
    AnalyzeOut,
    FeedbackIn,
    FeedbackOut,
    ReadyOut,
    analyze_request_schema,
)
from serving.gateway.settings import ServingSettings, read_settings
from serving.gateway.web_pages import add_web_pages
from serving.language_deployment import LanguageDeployment, read_language_deployment

MODELS: Final = "/v1/models"
_TURNED_AWAY: Final = frozenset({408, 413, 429, 503})
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def create_app(
    settings: ServingSettings,
    deployment: Deployment | None = None,
    *,
    embedding: EmbeddingDeployment | None = None,
    language: LanguageDeployment | None = None,
    files: DeploymentFiles = DeploymentFiles(),  # noqa: B008  # frozen
    mask: Callable[[str], str] = str,
    load: LoadEngine = load_engine,
) -> FastAPI:
    """The gateway of one to three deployments.

    Args:
        settings: limits, threads and the store's URL.
        deployment: the classifiers' arms; each one's folder is loaded when the app starts.
        embedding: the embedding model, likewise.
        language: the language models' arms, likewise.
        files: where deployments are read again from while the app runs.
        mask: applied to every text before anything else sees it.
        load: makes a language arm's engine.

    Raises:
        SettingsError: there is nothing to serve.
    """
    parts = make_parts(settings, deployment, embedding, language, files=files, mask=mask, load=load)
    app = FastAPI(
        title="matjip",
        version=CONTRACT_VERSION,
        summary="What Korean restaurant reviews say: each by itself, and a restaurant's together.",
        lifespan=parts.at_work,
    )
    app.add_middleware(RequestScope, metrics=parts.metrics)
    _add_error_handlers(app, parts.metrics)
    if parts.gateway is not None:
        _add_analyze(app, parts.gateway, settings)
    if parts.embedding is not None:
        add_embedding(app, parts.embedding, settings)
    if parts.language is not None:
        add_language(app, parts.language, settings)
    if parts.embedding is not None or parts.language is not None:
        _add_models(app, parts)
    _add_feedback(app, parts, settings)
    add_experiments(app, parts.experiments_api, settings, watched=files.with_arms)
    add_web_pages(app)
    _add_health(app, parts)
    return app


def _add_models(app: FastAPI, parts: Parts) -> None:
    @app.get(MODELS, summary="The models by OpenAI's routes, as OpenAI's API lists them")
    async def models() -> Response:
        speakers = [part for part in (parts.embedding, parts.language) if part is not None]
        listed = [model for part in speakers for model in part.models()]
        return json_answer({"object": "list", "data": listed})


def _add_analyze(app: FastAPI, gateway: Gateway, settings: ServingSettings) -> None:
    @app.post(
        ANALYZE,
        summary="Analyse one or many reviews",
        response_model=AnalyzeOut,
        responses=error_answers(400, 409, 413, 422, 429, 503),
        openapi_extra=json_body(analyze_request_schema(settings.max_reviews), ANALYZE_EXAMPLES),
    )
    async def analyze(request: Request) -> Response:
        """Each review is answered or refused by itself; the answer is sent once it is recorded."""
        return await gateway.analyze(request)


def _add_feedback(app: FastAPI, parts: Parts, settings: ServingSettings) -> None:
    @app.post(
        "/v1/feedback",
        summary="Say how an answer turned out",
        response_model=FeedbackOut,
        responses=error_answers(400, 404, 409, 413, 422, 503),
        openapi_extra=json_body(FeedbackIn.model_json_schema(), FEEDBACK_EXAMPLES),
    )
    async def feedback(request: Request) -> Response:
        """May come late, twice or out of order; of several for one answer the latest counts."""
        return await take_feedback(
            request, record=parts.record, settings=settings, metrics=parts.metrics
        )


def _add_health(app: FastAPI, parts: Parts) -> None:
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
        reasons = parts.reasons()
        answer: dict[str, Any] = {
            "ready": not reasons,
            "reasons": reasons,
            "warnings": parts.warnings(),
        }
        if parts.gateway is not None:
            answer |= parts.gateway.facts()
        if parts.embedding is not None:
            answer["embedding"] = parts.embedding.facts()
        if parts.language is not None:
            answer["language"] = await parts.language.facts()
        return json_answer(answer, 503 if reasons else 200)

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        parts.shared.measure()
        return Response(parts.metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_error_handlers(app: FastAPI, metrics: GatewayMetrics) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        code, field = _CODES.get(error.status_code, "refused"), None
        if isinstance(error, Refusal):
            code, field = error.code, error.field
        metrics.errors.labels(code).inc()
        if error.status_code in _TURNED_AWAY:
            metrics.rejected.labels(code).inc()
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


def main(
    deployment: Annotated[
        Path | None, typer.Option(help="Deployment file, as the deploy step wrote it.")
    ] = None,
    embedding_deployment: Annotated[
        Path | None, typer.Option(help="The embedding model's deployment file, likewise.")
    ] = None,
    language_deployment: Annotated[
        Path | None, typer.Option(help="The language models' deployment file, likewise.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Else MATJIP_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Else MATJIP_PORT, else 8080.")] = None,
) -> None:
    """Serve one to three deployments until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    given = {"MATJIP_HOST": host, "MATJIP_PORT": None if port is None else str(port)}
    environment = dict(os.environ) | {
        name: said for name, said in given.items() if said is not None
    }
    try:
        settings = read_settings(environment)
        app = create_app(
            settings,
            read_deployment(deployment) if deployment else None,
            embedding=read_embedding_deployment(embedding_deployment)
            if embedding_deployment
            else None,
            language=read_language_deployment(language_deployment) if language_deployment else None,
            files=DeploymentFiles(deployment, embedding_deployment, language_deployment),
            mask=lambda text: mask_text(text)[0],
        )
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
