"""What the embedding route does: check, mask, tokenise, queue, and write vectors as bytes.

Nothing is recorded: a vector is no answer that an experiment compares. A request is answered whole
or refused whole, as OpenAI's API has no place for one text's error.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from fastapi import Request, Response

from data.errors import EngineError
from serving.embedding_deployment import EmbeddingDeployment
from serving.gateway.asking import ask_runner, refuse_if_full, unless_gone
from serving.gateway.embedding_arm import LoadedEmbedder, load_embedding
from serving.gateway.embedding_body import cut, embeddings_body
from serving.gateway.embedding_model import Embedded, EmbeddingModel, TokenisedText
from serving.gateway.embedding_schemas import EmbeddingsIn, Given, read_embeddings, read_inputs
from serving.gateway.limits import JSON, Admission, Refusal, read_json
from serving.gateway.live import Live, Stage
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.settings import ServingSettings
from serving.gateway.sharing import Shared
from serving.gateway.stages import Stages

EMBEDDINGS: Final = "/v1/embeddings"
_INLINE_CHARACTERS: Final = 500
"""Of a request, that are tokenised where it runs: a thread would cost more than they do."""
_INLINE_VALUES: Final = 16_384
"""Numbers that are written where the request runs, about a millisecond; more go to a thread."""


class EmbeddingGateway:
    """An embedding deployment at work. Used from one event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        deployment: EmbeddingDeployment,
        *,
        shared: Shared,
        metrics: GatewayMetrics,
        mask: Callable[[str], str],
    ):
        """Hold the parts; ``start`` loads the model."""
        self.deployment = deployment
        self.stage: Stage[EmbeddingDeployment, LoadedEmbedder] = Stage(
            lambda deployment: load_embedding(deployment, shared),
            retire_s=settings.shutdown_timeout_s,
            swapped=metrics.show_embedding,
        )
        self._settings = settings
        self._metrics = metrics
        self._mask = mask
        self._admission = Admission(settings.batching.workers + settings.max_waiting)

    async def start(self) -> None:
        """Load the model; what goes wrong becomes a reason of ``/ready``."""
        await self.stage.start(self.deployment)

    async def stop(self) -> None:
        """Finish what runs."""
        await self.stage.stop()

    def reasons(self) -> list[str]:
        """Why the model cannot answer; empty if it can."""
        return self.stage.reasons()

    def facts(self) -> dict[str, Any]:
        """The deployment, for ``/ready``."""
        live = self.stage.live
        deployment = live.deployment if live else self.deployment
        facts: dict[str, Any] = {
            "deployment_id": deployment.deployment_id,
            "model": {"name": deployment.model_name, "version": deployment.version},
        }
        if live is not None:
            (arm,) = live.arms.values()
            facts |= {"dimensions": arm.model.spec.dimensions, "engine": arm.model.engine.name}
        return facts

    def models(self) -> list[dict[str, Any]]:
        """The model, as OpenAI's API lists it."""
        live = self.stage.live
        if live is None:
            return []
        (arm,) = live.arms.values()
        return [
            {
                "id": arm.model.spec.name,
                "object": "model",
                "created": int(live.deployment.created_at.timestamp()),
                "owned_by": "matjip",
                "version": live.deployment.version,
            }
        ]

    async def embed(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            Refusal: it cannot be answered.
        """
        with self._admission.enter():
            live = self.stage.live
            if live is None:
                raise Refusal(
                    503,
                    "not_ready",
                    "the embedding model is not ready; /ready says why",
                    retry_after_s=5,
                )
            with live.hold():
                return await self._embed(request, live)

    async def _embed(
        self, request: Request, live: Live[EmbeddingDeployment, LoadedEmbedder]
    ) -> Response:
        (arm,) = live.arms.values()
        stages = Stages()
        body = await read_json(
            request,
            max_bytes=self._settings.max_body_bytes,
            timeout_s=self._settings.body_timeout_s,
        )
        asked = read_embeddings(body)
        dimensions = _dimensions(asked, arm)
        given = read_inputs(
            asked.input,
            max_inputs=self._settings.max_inputs,
            vocabulary=arm.model.vocabulary,
            frame=arm.model.frame,
        )
        stages.done("read")
        # Token ids have no characters to guess from: their number alone is looked at.
        likely = [one if isinstance(one, str) else "" for one in given]
        refuse_if_full(arm.runner, likely, timeout_s=self._settings.deadline_s)
        texts = await self._tokenise(request, given, arm)
        tokens = self._count(texts)
        stages.done("tokenise")
        answers = await ask_runner(request, arm.runner, texts, timeout_s=self._settings.deadline_s)
        embedded = _all_of(answers)
        stages.done("queue", apart=("compute", _compute_s(embedded)))
        content = await _write(asked, embedded, arm, dimensions, tokens)
        stages.done("serialise")
        self._metrics.count_stages(EMBEDDINGS, stages.seconds)
        self._metrics.embedded.labels(arm.deployment.model_version).inc(len(texts))
        return Response(content, 200, _headers(arm, stages), JSON)

    async def _tokenise(
        self, request: Request, given: Sequence[Given], arm: LoadedEmbedder
    ) -> list[TokenisedText]:
        call = partial(_tokenise, given, arm.model, self._mask)
        try:
            if sum(map(len, given)) <= _INLINE_CHARACTERS:
                return call()
            return await unless_gone(request, asyncio.to_thread(call))
        except Refusal:
            raise
        except Exception as error:  # the tokeniser's exceptions share no base but this
            arm.runner.read_failed(error)
            raise Refusal(
                503,
                "tokenizer_failed",
                "the model's tokenizer failed on this request; send it again, or its texts apart",
                retry_after_s=5,
            ) from error

    def _count(self, texts: Sequence[TokenisedText]) -> int:
        tokens = sum(len(text.ids) for text in texts)
        most = self._settings.max_input_tokens
        if tokens > most:
            raise Refusal(
                422,
                "too_many_tokens",
                f"input: {tokens} tokens in one request; send at most {most}",
                field="input",
            )
        return tokens


def _tokenise(
    given: Sequence[Given], model: EmbeddingModel, mask: Callable[[str], str]
) -> list[TokenisedText]:
    """Texts, or ids, to masked texts with ids; the two never come mixed."""
    texts = [one for one in given if isinstance(one, str)]
    if texts:
        return model.tokenise([mask(text) for text in texts])
    several = [one for one in given if not isinstance(one, str)]
    tokenised = []
    for ids, text in zip(several, model.read(several), strict=True):
        masked = mask(text)
        # What was masked is read anew; else the caller's own ids are what is embedded.
        tokenised.append(
            model.from_ids(ids, text) if masked == text else model.tokenise([masked])[0]
        )
    return tokenised


def _dimensions(asked: EmbeddingsIn, arm: LoadedEmbedder) -> int:
    spec = arm.model.spec
    names = {spec.name, arm.deployment.model_name, arm.deployment.model_version}
    if asked.model is not None and asked.model not in names:
        raise Refusal(
            404,
            "unknown_model",
            f"model: {asked.model[:100]!r} is not served; ask for {spec.name!r}, or leave it out",
            field="model",
        )
    wanted = asked.dimensions or spec.dimensions
    if wanted == spec.dimensions or (spec.shortens and wanted < spec.dimensions):
        return wanted
    mend = "fewer" if spec.shortens else "leave it out"
    raise Refusal(
        422,
        "invalid_dimensions",
        f"dimensions: {wanted} asked of a model of {spec.dimensions}; ask for {spec.dimensions}, "
        f"or {mend}",
        field="dimensions",
    )


def _compute_s(embedded: Sequence[Embedded]) -> float:
    """Seconds of the batches that a request was part of, each batch once."""
    return sum(set[float]().union(*(one.batches_s for one in embedded)))


def _all_of(answers: Sequence[Embedded | EngineError]) -> list[Embedded]:
    embedded = [one for one in answers if isinstance(one, Embedded)]
    if len(embedded) == len(answers):
        return embedded
    failed = [str(number) for number, one in enumerate(answers) if not isinstance(one, Embedded)]
    raise Refusal(
        503,
        "engine_failed",
        f"the model could not embed {len(failed)} of {len(answers)} texts, at positions "
        f"{', '.join(failed[:20])}; send them again, or the others without them",
        field="input",
        retry_after_s=5,
    )


async def _write(
    asked: EmbeddingsIn,
    embedded: Sequence[Embedded],
    arm: LoadedEmbedder,
    dimensions: int,
    tokens: int,
) -> bytes:
    spec = arm.model.spec

    def write() -> bytes:
        vectors = np.stack([one.vector for one in embedded])
        return embeddings_body(
            cut(vectors, dimensions, normalize=spec.normalize),
            model=spec.name,
            tokens=tokens,
            encoding_format=asked.encoding_format,
        )

    if len(embedded) * dimensions <= _INLINE_VALUES:
        return write()
    return await asyncio.to_thread(write)


def _headers(arm: LoadedEmbedder, stages: Stages) -> dict[str, str]:
    said = {
        "X-Matjip-Model": arm.deployment.model_version,
        "X-Matjip-Deployment": arm.deployment.deployment_id,
    }
    # A model may have a Korean name; a header may not.
    headers = {name: quote(value, safe="/") for name, value in said.items()}
    return headers | {"Server-Timing": stages.header()}
