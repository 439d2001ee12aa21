"""What the analyse route does: check, assign, answer, commit, and only then reply.

What an arm could not answer is committed too, before the caller learns of it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final

from fastapi import Request, Response
from starlette.background import BackgroundTask

from serving.dealing import ArmName
from serving.deployment import Arm, Deployment
from serving.gateway.arms import LoadedArm, load_arms
from serving.gateway.asking import answer_or_errors, ask_arms
from serving.gateway.items import DEADLINE_PASSED, Item, assign, exposure, read_items, result
from serving.gateway.limits import Admission, Refusal, json_answer, read_json
from serving.gateway.live import Live, Stage
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.record import Record
from serving.gateway.route_watch import RouteWatch
from serving.gateway.routing import Routing
from serving.gateway.settings import ServingSettings
from serving.gateway.shadow import Shadow, is_mirrored
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
        routes: RouteWatch,
        shared: Shared,
        metrics: GatewayMetrics,
        mask: Callable[[str], str],
    ):
        """Hold the parts; ``start`` loads the models."""
        self.deployment = deployment
        self.metrics = metrics
        self.stage: Stage[Deployment, LoadedArm] = Stage(
            self._load,
            retire_s=settings.shutdown_timeout_s,
            swapped=metrics.show_arms,
            retired=self._forget_others,
        )
        self.routing: Routing[Arm] = Routing()
        self._record = record
        self._routes = routes
        self._shared = shared
        self._settings = settings
        self._mask = mask
        self._admission = Admission(settings.batching.workers + settings.max_waiting)
        self._shadow = Shadow(
            self.stage, most=settings.shadow_queue, room=self._leaves_room, metrics=metrics
        )
        metrics.inside.set_function(lambda: self._admission.inside)

    async def start(self) -> None:
        """Load every arm; what goes wrong becomes a reason of ``/ready``."""
        self._shadow.start()
        await self.stage.start(self.deployment)

    async def stop(self) -> None:
        """Finish what runs."""
        await self._shadow.drain(self._settings.shutdown_timeout_s)
        await self.stage.stop()

    def reasons(self) -> list[str]:
        """Why the models cannot answer; empty if they can."""
        live = self.stage.live
        unknown = self._routes.reasons(live.deployment.deployment_id) if live else []
        return [*self.stage.reasons(), *unknown]

    def facts(self) -> dict[str, Any]:
        """The deployment's arms, for ``/ready``."""
        deployment = self.stage.live.deployment if self.stage.live else self.deployment
        return {
            "experiment_id": deployment.experiment_id,
            "deployment_id": deployment.deployment_id,
            "route": self._routes.fact(deployment.deployment_id),
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
            if live is None or self._routes.reasons(live.deployment.deployment_id):
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
        await self._commit(enumerate(items), request_id, live.deployment, latency_ms)
        stages.done("store")
        self._count(items)
        _refuse_if_none_was_answered(items)
        answer = json_answer(
            {
                "request_id": request_id,
                "experiment_id": live.deployment.experiment_id,
                "deployment_id": live.deployment.deployment_id,
                "results": [result(item, number, request_id) for number, item in enumerate(items)],
            }
        )
        stages.done("serialise")
        self.metrics.count_stages(ANALYZE, stages.seconds)
        answer.headers["Server-Timing"] = stages.header()
        answer.background = self._mirror(items, request_id, live)
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
        groups = await ask_arms(
            request,
            [
                (live.arms[name].runner, [item.text for item in some])
                for name, some in asked.items()
            ],
            timeout_s=self._settings.deadline_s,
        )
        for some, answers in zip(asked.values(), groups, strict=True):
            for item, answer in zip(some, answers, strict=True):
                item.take(answer)

    async def _commit(
        self,
        items: Iterable[tuple[int, Item]],
        request_id: str,
        deployment: Deployment,
        latency_ms: float,
    ) -> None:
        """Store what every arm was asked, and what came of it.

        Raises:
            Refusal: the store refuses.
        """
        made = (
            exposure(
                item,
                number,
                request_id=request_id,
                deployment=deployment,
                latency_ms=latency_ms,
                at_us=self._record.now_us(),
            )
            for number, item in items
        )
        if shown := [one for one in made if one is not None]:
            await self._record.keep(shown)
        for one in shown:
            self.metrics.exposures.labels(one.arm).inc()

    def _mirror(
        self, items: Sequence[Item], request_id: str, live: Live[Deployment, LoadedArm]
    ) -> BackgroundTask | None:
        """What is done once the caller has the answer; nothing where nothing is mirrored."""
        dealt = {n: item for n, item in enumerate(items) if item.arm and item.why == "assigned"}
        if not dealt or not is_mirrored(live.deployment, request_id):
            return None
        return BackgroundTask(
            self._shadow.offer, live, partial(self._answer_again, dealt, request_id, live)
        )

    async def _answer_again(
        self, dealt: Mapping[int, Item], request_id: str, live: Live[Deployment, LoadedArm]
    ) -> None:
        """Ask every arm but the control for its answers, one after another, and store them."""
        for arm in live.deployment.arms[1:]:
            await self._shadow.room()
            started = time.perf_counter()
            again = {number: item.mirrored(arm) for number, item in dealt.items()}
            answers = await answer_or_errors(
                live.arms[arm.name].runner,
                [item.text for item in again.values()],
                self._settings.deadline_s,
            )
            latency_ms = (time.perf_counter() - started) * 1000
            for item, answer in zip(again.values(), answers, strict=True):
                item.take(answer)
            await self._commit(again.items(), request_id, live.deployment, latency_ms)
            for item in again.values():
                status = "ok" if item.prediction else "failed"
                self.metrics.mirrored.labels(arm.name, status).inc()

    async def _load(self, deployment: Deployment) -> Live[Deployment, LoadedArm]:
        """A deployment's arms, its route known: whoever comes first must meet whom it names."""
        live = await load_arms(deployment, self._shared)
        await self._routes.follow("sentiment", deployment, self.routing)
        return live

    def _forget_others(self, deployment_ids: AbstractSet[str]) -> None:
        self.routing.forget_others(deployment_ids)
        self._routes.keep("sentiment", deployment_ids)

    def _leaves_room(self) -> bool:
        """Whether mirrored work would keep no caller waiting."""
        busy = self._admission.inside >= self._settings.batching.workers
        return not busy and not self._shared.admission.state().waiting

    def _count(self, items: Sequence[Item]) -> None:
        for item in items:
            arm = item.arm.name if item.arm else "none"
            self.metrics.items.labels(arm, "ok" if item.prediction else "error").inc()
            if item.error is not None:
                self.metrics.errors.labels(item.error.code).inc()


def _refuse_if_none_was_answered(items: Sequence[Item]) -> None:
    asked = [item for item in items if item.arm is not None]
    if not asked or any(item.prediction for item in asked):
        return
    late = all(item.error is DEADLINE_PASSED for item in asked)
    raise Refusal(
        503,
        "deadline_passed" if late else "engine_failed",
        f"the model answered none of the reviews{' in time' if late else ''}",
        retry_after_s=5,
    )
