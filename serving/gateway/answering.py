"""What the analyse route does: check, assign, answer, commit, and only then reply."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import Request, Response

from data.errors import EngineError
from serving.dealing import ArmName
from serving.deployment import Arm, Deployment
from serving.gateway.arms import LoadedArm, load_arms
from serving.gateway.asking import ask_runners
from serving.gateway.items import ENGINE_FAILED, Item, assign, exposure, read_items, result
from serving.gateway.limits import Admission, Refusal, json_answer, read_json
from serving.gateway.live import Live, Stage
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.record import Record
from serving.gateway.routing import Routing
from serving.gateway.settings import ServingSettings
from serving.gateway.sharing import Shared
from serving.gateway.stages import Stages

ANALYZE: Final = "/v1/analyze"


class Gateway:
    """A deployment at work. Used from one event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        deployment: Deployment,
        *,
        record: Record,
        shared: Shared,
        metrics: GatewayMetrics,
        mask: Callable[[str], str],
    ):
        """Hold the parts; ``start`` loads the models."""
        self.deployment = deployment
        self.metrics = metrics
        self.stage: Stage[Deployment, LoadedArm] = Stage(
            lambda deployment: load_arms(deployment, shared),
            retire_s=settings.shutdown_timeout_s,
            swapped=metrics.show_arms,
        )
        self.routing: Routing[Arm] = Routing()
        self._record = record
        self._settings = settings
        self._mask = mask
        self._admission = Admission(settings.batching.workers + settings.max_waiting)
        metrics.inside.set_function(lambda: self._admission.inside)

    async def start(self) -> None:
        """Load every arm; what goes wrong becomes a reason of ``/ready``."""
        await self.stage.start(self.deployment)

    async def stop(self) -> None:
        """Finish what runs."""
        await self.stage.stop()

    def reasons(self) -> list[str]:
        """Why the models cannot answer; empty if they can."""
        return self.stage.reasons()

    def facts(self) -> dict[str, Any]:
        """The deployment's arms, for ``/ready``."""
        deployment = self.stage.live.deployment if self.stage.live else self.deployment
        return {
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

    async def analyze(self, request: Request) -> Response:
        """Answer one or many reviews, all by one deployment.

        Raises:
            Refusal: the request as a whole cannot be answered.
        """
        with self._admission.enter():
            live = self.stage.live
            if live is None:
                raise Refusal(
                    503, "not_ready", "the gateway is not ready; /ready says why", retry_after_s=5
                )
            self._record.refuse_unless_open()
            with live.hold():
                return await self._analyze(request, live)

    async def _analyze(self, request: Request, live: Live[Deployment, LoadedArm]) -> Response:
        started, stages = time.perf_counter(), Stages()
        request_id: str = request.state.request_id
        items = self._items(await self._json(request), request_id, live.deployment)
        stages.done("read")
        await self._answer(request, items, live)
        stages.done("answer")
        latency_ms = (time.perf_counter() - started) * 1000
        made = (
            exposure(
                item,
                number,
                request_id=request_id,
                deployment=live.deployment,
                latency_ms=latency_ms,
            )
            for number, item in enumerate(items)
        )
        if shown := [one for one in made if one is not None]:
            await self._record.commit(exposures=shown)
        stages.done("store")
        for one in shown:
            self.metrics.exposures.labels(one.arm).inc()
        answer = json_answer(
            {
                "request_id": request_id,
                "experiment_id": live.deployment.experiment_id,
                "deployment_id": live.deployment.deployment_id,
                "results": [result(item, number, request_id) for number, item in enumerate(items)],
            }
        )
        stages.done("serialise")
        self._count(items)
        self.metrics.count_stages(ANALYZE, stages.seconds)
        answer.headers["Server-Timing"] = stages.header()
        return answer

    async def _json(self, request: Request) -> object:
        return await read_json(
            request,
            max_bytes=self._settings.max_body_bytes,
            timeout_s=self._settings.body_timeout_s,
        )

    def _items(self, body: object, request_id: str, deployment: Deployment) -> list[Item]:
        read = read_items(body, request_id, max_reviews=self._settings.max_reviews)
        items = [assign(raw, unit, deployment, self.routing) for raw, unit in read]
        for item in items:
            item.text = self._mask(item.text)
        return items

    async def _answer(
        self, request: Request, items: Sequence[Item], live: Live[Deployment, LoadedArm]
    ) -> None:
        """Fill in each item's prediction or error."""
        asked: dict[ArmName, list[Item]] = {}
        for item in items:
            if item.arm is not None:
                asked.setdefault(item.arm.name, []).append(item)
        if not asked:
            return
        groups = await ask_runners(
            request,
            [
                (live.arms[name].runner, [item.text for item in some])
                for name, some in asked.items()
            ],
            timeout_s=self._settings.deadline_s,
        )
        for some, answers in zip(asked.values(), groups, strict=True):
            for item, answer in zip(some, answers, strict=True):
                if isinstance(answer, EngineError):
                    item.error = ENGINE_FAILED
                else:
                    item.prediction = answer
        if not any(item.prediction for item in items):
            self._count(items)
            raise Refusal(
                503, "engine_failed", "the model answered none of the reviews", retry_after_s=5
            )

    def _count(self, items: Sequence[Item]) -> None:
        for item in items:
            arm = item.arm.name if item.arm else "none"
            self.metrics.items.labels(arm, "ok" if item.prediction else "error").inc()
            if item.error is not None:
                self.metrics.errors.labels(item.error.code).inc()
