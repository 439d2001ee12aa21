"""The embedding route and its documentation; what it does is in embedding.py."""

from typing import Any

from fastapi import FastAPI, Request, Response

from serving.gateway.embedding import EMBEDDINGS, EmbeddingGateway
from serving.gateway.embedding_schemas import (
    EMBEDDING_ANSWER_EXAMPLE,
    EMBEDDING_EXAMPLES,
    EmbeddingsOut,
    embeddings_request_schema,
)
from serving.gateway.openapi import error_answers, json_body
from serving.gateway.settings import ServingSettings


def add_embedding(app: FastAPI, gateway: EmbeddingGateway, settings: ServingSettings) -> None:
    """Add the route to an app."""
    answer: dict[str, Any] = {
        "description": "The vectors, in the input's order. `Server-Timing` says where time went.",
        "content": {"application/json": {"example": EMBEDDING_ANSWER_EXAMPLE}},
    }

    @app.post(
        EMBEDDINGS,
        summary="Texts to vectors, as OpenAI's API does",
        response_model=EmbeddingsOut,
        responses=error_answers(400, 404, 413, 422, 429, 503) | {200: answer},
        openapi_extra=json_body(embeddings_request_schema(settings.max_inputs), EMBEDDING_EXAMPLES),
    )
    async def embeddings(request: Request) -> Response:
        """A long text is read in windows, never cut, and its vector is their weighted mean.

        An empty text is refused, as OpenAI refuses it. Personal data is masked before it is read;
        token ids that spell some are read anew from the masked text.
        """
        return await gateway.embed(request)
