"""The language routes: summaries by our own prompts, and OpenAI's API passed on to the unit's arm.

Every request goes to an arm by its unit, and its exposure is on disk before the answer, or the
first part of a stream, is sent. The store keeps no words: an answer stands there as facts and hash.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import orjson
from fastapi import Request, Response

from data.contract import Review
from data.errors import MatjipError
from data.manifest import canonical_digest
from data.prompts import TASKS
from serving.dealing import ArmName
from serving.experiments.assignment import unit_hash
from serving.gateway.language_arms import (
    LoadedLanguageArm,
    LoadEngine,
    load_language_arm,
)
from serving.gateway.language_schemas import (
    ChatIn,
    CompletionIn,
    SummaryIn,
    read_generation,
    read_summary,
)
from serving.gateway.limits import JSON, Admission, Refusal, read_json
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.passing import masked, pass_on, unit_of_header
from serving.gateway.record import Record
from serving.gateway.routing import Routing
from serving.gateway.settings import ServingSettings
from serving.gateway.turns import Turn, sha256
from serving.gateway.upstream import State, UpstreamPath
from serving.language_deployment import LanguageArm, LanguageDeployment
from serving.summaries import ANSWER_TOKENS, SummaryOutcome, summarise

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
SUMMARY: Final = "/v1/summary"
_log = logging.getLogger(__name__)


class LanguageGateway:
    """A language deployment at work. Used from one event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        deployment: LanguageDeployment,
        *,
        record: Record,
        metrics: GatewayMetrics,
        mask: Callable[[str], str],
        load: LoadEngine,
    ):
        """Hold the parts; ``start`` loads the engines."""
        self.deployment = deployment
        self.routing: Routing[LanguageArm] = Routing()
        self._settings = settings
        self._record = record
        self._metrics = metrics
        self._mask = mask
        self._load = load
        self._admission = Admission(settings.max_language_requests)
        self._arms: dict[ArmName, LoadedLanguageArm] = {}
        self._reasons = ["the language models are not loaded yet"]

    async def start(self) -> None:
        """Load every arm; what goes wrong becomes a reason of ``/ready``."""
        self._reasons = []
        for arm in self.deployment.arms:
            try:
                self._arms[arm.name] = await asyncio.to_thread(
                    load_language_arm, arm, self._settings, self._load
                )
            except MatjipError as error:
                _log.error("not ready: %s", error)
                self._reasons.append(str(error))

    async def stop(self) -> None:
        """Let go of every engine and server."""
        for loaded in self._arms.values():
            await loaded.close()

    def reasons(self) -> list[str]:
        """Why the language models cannot answer; a server that is down is none: see ``facts``."""
        return self._reasons

    async def facts(self) -> dict[str, Any]:
        """The arms, and whether each one's server lives, for ``/ready``."""
        states = await asyncio.gather(
            *(_state(self._arms.get(arm.name)) for arm in self.deployment.arms)
        )
        return {
            "experiment_id": self.deployment.experiment_id,
            "deployment_id": self.deployment.deployment_id,
            "arms": [
                {
                    "name": arm.name,
                    "model": {"name": arm.model_name, "version": arm.version},
                    "share": arm.share,
                    "endpoint": arm.endpoint.kind,
                    "state": state,
                }
                for arm, state in zip(self.deployment.arms, states, strict=True)
            ],
        }

    def models(self) -> list[dict[str, Any]]:
        """The arms' models, as OpenAI's API lists them; which one answers is the unit's matter."""
        created = int(self.deployment.created_at.timestamp())
        return [
            {
                "id": arm.model_name,
                "object": "model",
                "created": created,
                "owned_by": "matjip",
                "version": arm.version,
                "arm": arm.name,
            }
            for arm in self.deployment.arms
        ]

    async def summary(self, request: Request) -> Response:
        """Summarise a restaurant's reviews; a model that fails makes the answer ``degraded``.

        Raises:
            Refusal: the request cannot be answered at all.
        """
        started = time.perf_counter()
        with self._admission.enter():
            self._record.refuse_unless_open(*self._reasons)
            asked = read_summary(await self._json(request), self._settings.max_summary_reviews)
            turn = self._turn(request, SUMMARY, asked.unit or asked.restaurant_id, started)
            reviews = [
                Review(
                    review_id=each.review_id,
                    text=self._mask(each.text),
                    restaurant_id=asked.restaurant_id,
                    written_on=each.written_on,
                )
                for each in asked.reviews
            ]
            most = turn.loaded.arm.max_answer_tokens
            outcome = await summarise(
                turn.loaded.engine,
                reviews,
                answer_tokens={task: min(ANSWER_TOKENS[task], most) for task in TASKS},
                timeout_s=self._settings.language_timeout_s,
            )
            content = orjson.dumps(_summary_body(asked, outcome, turn))
            if reviews:  # without any, no arm had a part in the answer
                said = canonical_digest([each.model_dump(mode="json") for each in reviews])
                facts = _summary_facts(outcome) | {"answer_sha256": sha256(content)}
                await self._record.commit(exposures=[turn.exposure(said, facts)])
        self._count(turn, outcome.status)
        return Response(content, media_type=JSON)

    async def generate(self, request: Request, path: UpstreamPath) -> Response:
        """Pass a chat or completion on to the unit's arm, or let its engine answer.

        Raises:
            Refusal: the request is not one that may be passed on, or the arm cannot answer it.
        """
        started = time.perf_counter()
        with ExitStack() as inside:
            inside.enter_context(self._admission.enter())
            self._record.refuse_unless_open(*self._reasons)
            kind = ChatIn if path == CHAT else CompletionIn
            asked = masked(read_generation(kind, await self._json(request)), self._mask)
            unit = unit_of_header(request.headers) or asked.user or request.state.request_id
            turn = self._turn(request, path, unit, started)
            try:
                answer = await pass_on(
                    asked,
                    path,
                    turn,
                    record=self._record,
                    inside=inside,
                    timeout_s=self._settings.language_timeout_s,
                )
            except Refusal as refusal:
                self._count(turn, refusal.code)
                raise
        self._count(turn, "ok")
        return answer

    async def _json(self, request: Request) -> object:
        return await read_json(
            request,
            max_bytes=self._settings.max_body_bytes,
            timeout_s=self._settings.body_timeout_s,
        )

    def _turn(self, request: Request, route: str, unit: str, started: float) -> Turn:
        hashed = unit_hash(self.deployment.salt, unit)
        arm, why = self.routing.meet(self.deployment, hashed)
        loaded = self._arms[arm.name]
        return Turn(request.state.request_id, route, hashed, self.deployment, loaded, started, why)

    def _count(self, turn: Turn, status: str) -> None:
        arm = turn.loaded.arm.name
        self._metrics.language.labels(turn.route, arm, status).inc()
        self._metrics.language_seconds.labels(turn.route, arm).observe(
            time.perf_counter() - turn.started
        )


def _summary_body(asked: SummaryIn, outcome: SummaryOutcome, turn: Turn) -> dict[str, Any]:
    arm, deployment = turn.loaded.arm, turn.deployment
    return {
        "request_id": turn.request_id,
        "experiment_id": deployment.experiment_id,
        "deployment_id": deployment.deployment_id,
        "restaurant_id": asked.restaurant_id,
        "arm": arm.name,
        "model": {"name": arm.model_name, "version": arm.version},
        "prompts": outcome.prompt_versions,
        "status": outcome.status,
        "reasons": outcome.reasons,
        "notes": outcome.notes,
        "summary": outcome.summary.model_dump(mode="json") if outcome.summary else None,
        "strengths": outcome.strengths.model_dump(mode="json") if outcome.strengths else None,
        "tokens": {"prompt": outcome.prompt_tokens, "completion": outcome.completion_tokens},
        "timings_ms": outcome.timings_ms | {"total": (time.perf_counter() - turn.started) * 1000},
    }


def _summary_facts(outcome: SummaryOutcome) -> dict[str, Any]:
    aspects = outcome.summary.aspects if outcome.summary else {}
    praised = outcome.strengths.representative if outcome.strengths else ()
    return {
        "task": SUMMARY,
        "status": outcome.status,
        "prompts": outcome.prompt_versions,
        "aspects": {aspect: each.polarity for aspect, each in aspects.items()},
        "strengths": [each.aspect for each in praised],
        "reviews_read": len(outcome.routed),
    }


async def _state(loaded: LoadedLanguageArm | None) -> State:
    if loaded is None:
        return "down"
    return await loaded.upstream.state() if loaded.upstream else "up"
