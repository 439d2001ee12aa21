"""The language routes and their documentation; what they do is in language.py."""

from fastapi import FastAPI, Request, Response

from serving.gateway.language import CHAT, COMPLETIONS, LanguageGateway
from serving.gateway.language_schemas import (
    CHAT_EXAMPLES,
    COMPLETION_EXAMPLES,
    SUMMARY_EXAMPLES,
    ChatIn,
    CompletionIn,
    SummaryOut,
    summary_request_schema,
)
from serving.gateway.openapi import error_answers, json_body
from serving.gateway.settings import ServingSettings
from serving.gateway.summary_body import SUMMARY


def add_language(app: FastAPI, gateway: LanguageGateway, settings: ServingSettings) -> None:
    """Add every language route to an app."""
    _add_summary(app, gateway, settings)
    _add_openai(app, gateway)


def _add_summary(app: FastAPI, gateway: LanguageGateway, settings: ServingSettings) -> None:
    @app.post(
        SUMMARY,
        summary="Summarise a restaurant's reviews",
        response_model=SummaryOut,
        responses=error_answers(400, 409, 413, 422, 429, 503),
        openapi_extra=json_body(
            summary_request_schema(settings.max_summary_reviews), SUMMARY_EXAMPLES
        ),
    )
    async def summary(request: Request) -> Response:
        """Per aspect and overall, and what is praised, each claim with the words it rests on.

        A model that is down or says nonsense makes the status ``degraded``, never the request fail.
        """
        return await gateway.summary(request)


def _add_openai(app: FastAPI, gateway: LanguageGateway) -> None:
    @app.post(
        CHAT,
        summary="Chat with the unit's model, as OpenAI's API does",
        response_class=Response,
        responses=error_answers(400, 409, 413, 422, 429, 503),
        openapi_extra=json_body(ChatIn.model_json_schema(), CHAT_EXAMPLES),
    )
    async def chat(request: Request) -> Response:
        """The unit is X-Matjip-Unit, else ``user``, else the request's id; it decides the model."""
        return await gateway.generate(request, CHAT)

    @app.post(
        COMPLETIONS,
        summary="Let the unit's model go on with a text, as OpenAI's API does",
        response_class=Response,
        responses=error_answers(400, 409, 413, 422, 429, 503),
        openapi_extra=json_body(CompletionIn.model_json_schema(), COMPLETION_EXAMPLES),
    )
    async def completions(request: Request) -> Response:
        """As the chat, for a model behind a server; one in this process knows only chats."""
        return await gateway.generate(request, COMPLETIONS)
