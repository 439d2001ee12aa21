"""The language routes: summaries by our own prompts, and OpenAI's API passed on to the unit's arm.

Every request goes to an arm by its unit, and its exposure is on disk before the answer, or the
first part of a stream, is sent. The store keeps no words: an answer stands there as facts and hash.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import orjson
from fastapi import Request, Response

from data.contract import Review
from data.manifest import canonical_digest
from data.prompts import TASKS
from serving.experiments.assignment import unit_hash
from serving.experiments.store import Exposure
from serving.gateway.language_arms import (
    LoadedLanguageArm,
    LoadEngine,
    load_language_arms,
)
from serving.gateway.language_schemas import (
    ChatIn,
    CompletionIn,
    read_generation,
    read_summary,
)
from serving.gateway.limits import JSON, Admission, Refusal, read_json
from serving.gateway.live import Live, Stage
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.passing import masked, pass_on, unit_of_header
from serving.gateway.record import Record
from serving.gateway.route_watch import RouteWatch
from serving.gateway.routing import Routing
from serving.gateway.settings import ServingSettings
from serving.gateway.summary_body import SUMMARY, summary_body, summary_facts
from serving.gateway.turns import Turn, sha256
from serving.gateway.upstream import State, UpstreamPath
from serving.language_deployment import LanguageArm, LanguageDeployment
from serving.summaries import ANSWER_TOKENS, SummaryOutcome, summarise

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"


class LanguageGateway:
    """A language deployment at work. Used from one event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        deployment: LanguageDeployment,
        *,
        record: Record,
        routes: RouteWatch,
        metrics: GatewayMetrics,
        mask: Callable[[str], str],
        load: LoadEngine,
    ):
        """Hold the parts; ``start`` loads the engines."""
        self.deployment = deployment
        self.routing: Routing[LanguageArm] = Routing()
        self.stage: Stage[LanguageDeployment, LoadedLanguageArm] = Stage(
            self._load,
            retire_s=settings.shutdown_timeout_s,
            swapped=metrics.show_arms,
            retired=self._forget_others,
        )
        self._settings = settings
        self._record = record
        self._routes = routes
        self._metrics = metrics
        self._mask = mask
        self._load_engine = load
        self._admission = Admission(settings.max_language_requests)

    async def start(self) -> None:
        """Load every arm; what goes wrong becomes a reason of ``/ready``."""
        await self.stage.start(self.deployment)

    async def stop(self) -> None:
        """Let go of every engine and server."""
        await self.stage.stop()

    def reasons(self) -> list[str]:
        """Why the language models cannot answer; a server that is down is none: see ``facts``."""
        live = self.stage.live
        unknown = self._routes.reasons(live.deployment.deployment_id) if live else []
        return [*self.stage.reasons(), *unknown]

    def warnings(self) -> list[str]:
        """What is not as it was meant, though they answer."""
        live = self.stage.live
        said = self.stage.warnings()
        if live is not None and live.deployment.phase and live.deployment.phase.kind == "shadow":
            said.append("a shadow of language models mirrors nothing: its other arms are not asked")
        return said

    async def facts(self) -> dict[str, Any]:
        """The arms, and whether each one's server lives, for ``/ready``."""
        live = self.stage.live
        deployment, arms = (live.deployment, live.arms) if live else (self.deployment, {})
        states = await asyncio.gather(*(_state(arms.get(arm.name)) for arm in deployment.arms))
        return {
            "experiment_id": deployment.experiment_id,
            "deployment_id": deployment.deployment_id,
            "route": self._routes.fact(deployment.deployment_id),
            "arms": [
                {
                    "name": arm.name,
                    "model": {"name": arm.model_name, "version": arm.version},
                    "share": arm.share,
                    "endpoint": arm.endpoint.kind,
                    "state": state,
                }
                for arm, state in zip(deployment.arms, states, strict=True)
            ],
        }

    def models(self) -> list[dict[str, Any]]:
        """The arms' models, as OpenAI's API lists them; which one answers is the unit's matter."""
        deployment = self.stage.live.deployment if self.stage.live else self.deployment
        created = int(deployment.created_at.timestamp())
        return [
            {
                "id": arm.model_name,
                "object": "model",
                "created": created,
                "owned_by": "matjip",
                "version": arm.version,
                "arm": arm.name,
            }
            for arm in deployment.arms
        ]

    async def summary(self, request: Request) -> Response:
        """Summarise a restaurant's reviews; a model that fails makes the answer ``degraded``.

        Raises:
            Refusal: the request cannot be answered at all.
        """
        started = time.perf_counter()
        with self._admission.enter(), self._held() as live:
            asked = read_summary(await self._json(request), self._settings.max_summary_reviews)
            turn = self._turn(live, request, SUMMARY, asked.unit or asked.restaurant_id, started)
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
            content = orjson.dumps(summary_body(asked, outcome, turn))
            if reviews:  # without any, no arm had a part in the answer
                said = canonical_digest([each.model_dump(mode="json") for each in reviews])
                facts = summary_facts(outcome) | {"answer_sha256": sha256(content)}
                await self._record.commit(exposures=[self._summarised(turn, said, facts, outcome)])
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
            live = inside.enter_context(self._held())
            kind = ChatIn if path == CHAT else CompletionIn
            asked = masked(read_generation(kind, await self._json(request)), self._mask)
            unit = unit_of_header(request.headers) or asked.user or request.state.request_id
            turn = self._turn(live, request, path, unit, started)
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

    async def _load(
        self, deployment: LanguageDeployment
    ) -> Live[LanguageDeployment, LoadedLanguageArm]:
        """A deployment's arms, its route known: whoever comes first must meet whom it names."""
        live = await load_language_arms(deployment, self._settings, self._load_engine)
        await self._routes.follow("language", deployment, self.routing)
        return live

    def _forget_others(self, deployment_ids: AbstractSet[str]) -> None:
        self.routing.forget_others(deployment_ids)
        self._routes.keep("language", deployment_ids)

    @contextmanager
    def _held(self) -> Iterator[Live[LanguageDeployment, LoadedLanguageArm]]:
        """What answers now, for as long as a request lasts.

        Raises:
            Refusal: 503, nothing may answer yet.
        """
        live = self.stage.live
        self._record.refuse_unless_open(*self.reasons())
        if live is None:
            raise Refusal(503, "not_ready", "the language models are not loaded; /ready says why")
        with live.hold():
            yield live

    def _turn(
        self,
        live: Live[LanguageDeployment, LoadedLanguageArm],
        request: Request,
        route: str,
        unit: str,
        started: float,
    ) -> Turn:
        deployment = live.deployment
        hashed = unit_hash(deployment.salt, unit)
        arm, why = self.routing.meet(deployment, hashed)
        loaded = live.arms[arm.name]
        return Turn(request.state.request_id, route, hashed, deployment, loaded, started, why)

    def _summarised(
        self, turn: Turn, said: str, facts: dict[str, Any], outcome: SummaryOutcome
    ) -> Exposure:
        return turn.exposure(
            said,
            facts,
            at_us=self._record.now_us(),
            status="degraded" if outcome.status == "degraded" else "ok",
            tokens=outcome.prompt_tokens + outcome.completion_tokens,
        )

    def _count(self, turn: Turn, status: str) -> None:
        arm = turn.loaded.arm.name
        self._metrics.language.labels(turn.route, arm, status).inc()
        self._metrics.language_seconds.labels(turn.route, arm).observe(
            time.perf_counter() - turn.started
        )


async def _state(loaded: LoadedLanguageArm | None) -> State:
    if loaded is None:
        return "down"
    return await loaded.upstream.state() if loaded.upstream else "up"
