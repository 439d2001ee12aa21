"""What the analyse route does: check, assign, answer, commit, and only then reply."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import ValidationError

from data.errors import MatjipError
from serving.deployment import Arm, ArmName, Deployment
from serving.experiments.assignment import arm_of, unit_hash
from serving.experiments.store import Exposure
from serving.gateway.arms import Answer, LoadedArm, answer_texts, load_arms
from serving.gateway.limits import Admission, Refusal, json_answer, read_json
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.record import Record
from serving.gateway.schemas import AnalyzeIn, ItemError, first_problem, read_item
from serving.gateway.settings import ServingSettings

_log = logging.getLogger(__name__)
_ENGINE_FAILED = ItemError(
    code="engine_failed", message="the model could not answer this review; send it again"
)


@dataclass(slots=True)
class _Item:
    """One review on its way through the gateway."""

    review_id: str | None
    text: str = ""
    unit: str = ""
    arm: Arm | None = None
    answer: Answer | None = None
    error: ItemError | None = None


class Gateway:
    """A deployment at work. Used from one event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        deployment: Deployment,
        *,
        record: Record,
        metrics: GatewayMetrics,
        mask: Callable[[str], str],
    ):
        """Hold the parts; ``start`` loads the models."""
        self.deployment = deployment
        self.metrics = metrics
        self._record = record
        self._settings = settings
        self._mask = mask
        self._admission = Admission(settings.workers + settings.max_waiting)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="engine")
        self._arms: dict[ArmName, LoadedArm] = {}
        self._reasons = ["the gateway is starting"]

    async def start(self) -> None:
        """Load every arm; what goes wrong becomes a reason of ``/ready``."""
        self._reasons = []
        try:
            self._arms = await asyncio.to_thread(
                load_arms, self.deployment, threads=self._settings.engine_threads
            )
        except MatjipError as error:
            _log.error("not ready: %s", error)
            self._reasons = [str(error)]

    async def stop(self) -> None:
        """Finish what runs."""
        self._pool.shutdown(wait=True)

    def reasons(self) -> list[str]:
        """Why the models cannot answer; empty if they can."""
        return self._reasons

    def facts(self) -> dict[str, Any]:
        """The deployment's arms, for ``/ready``."""
        return {
            "experiment_id": self.deployment.experiment_id,
            "deployment_id": self.deployment.deployment_id,
            "arms": [
                {
                    "name": arm.name,
                    "model": {"name": arm.model_name, "version": arm.version},
                    "share": arm.share,
                }
                for arm in self.deployment.arms
            ],
        }

    async def analyze(self, request: Request) -> Response:
        """Answer one or many reviews.

        Raises:
            Refusal: the request as a whole cannot be answered.
        """
        started = time.perf_counter()
        request_id: str = request.state.request_id
        with self._admission.enter():
            self.metrics.inside.set(self._admission.inside)
            self._record.refuse_unless_open(*self._reasons)
            items = self._read_items(await self._json(request), request_id)
            await self._answer(items)
            latency_ms = (time.perf_counter() - started) * 1000
            shown = [
                self._exposure(request_id, number, item, item.arm, item.answer[1], latency_ms)
                for number, item in enumerate(items)
                if item.arm and item.answer
            ]
            if shown:
                await self._record.commit(exposures=shown)
        self.metrics.inside.set(self._admission.inside)
        for item in items:
            arm = item.arm.name if item.arm else "none"
            self.metrics.items.labels(arm, "ok" if item.answer else "error").inc()
        for exposure in shown:
            self.metrics.exposures.labels(exposure.arm).inc()
        return json_answer(
            {
                "request_id": request_id,
                "experiment_id": self.deployment.experiment_id,
                "deployment_id": self.deployment.deployment_id,
                "results": [_result(request_id, number, item) for number, item in enumerate(items)],
            }
        )

    async def _json(self, request: Request) -> object:
        return await read_json(
            request,
            max_bytes=self._settings.max_body_bytes,
            timeout_s=self._settings.body_timeout_s,
        )

    def _read_items(self, body: object, request_id: str) -> list[_Item]:
        try:
            envelope = AnalyzeIn.model_validate(body)
        except ValidationError as error:
            field, message = first_problem(error)
            raise Refusal(422, "invalid_request", message, field=field) from error
        if len(envelope.reviews) > self._settings.max_reviews:
            raise Refusal(
                422,
                "too_many_reviews",
                f"reviews: {len(envelope.reviews)} in one request; send at most "
                f"{self._settings.max_reviews}",
                field="reviews",
            )
        default_unit = envelope.unit or request_id
        return [self._read_item(raw, default_unit) for raw in envelope.reviews]

    def _read_item(self, raw: object, default_unit: str) -> _Item:
        review = read_item(raw)
        if isinstance(review, ItemError):
            self.metrics.errors.labels(review.code).inc()
            given = raw.get("review_id") if isinstance(raw, dict) else None
            return _Item(given if isinstance(given, str) else None, error=review)
        unit = unit_hash(self.deployment.salt, review.unit or default_unit)
        arm = arm_of(self.deployment, unit)
        return _Item(review.review_id, text=self._mask(review.text), unit=unit, arm=arm)

    async def _answer(self, items: list[_Item]) -> None:
        """Fill in each item's answer or error."""
        asked: dict[ArmName, list[_Item]] = {}
        for item in items:
            if item.arm is not None:
                asked.setdefault(item.arm.name, []).append(item)
        loop = asyncio.get_running_loop()
        jobs = [
            loop.run_in_executor(self._pool, self._ask, name, [item.text for item in some])
            for name, some in asked.items()
        ]
        for some, answers in zip(asked.values(), await asyncio.gather(*jobs), strict=True):
            for item, answer in zip(some, answers, strict=True):
                item.answer = answer
                if answer is None:
                    item.error = _ENGINE_FAILED
                    self.metrics.errors.labels(_ENGINE_FAILED.code).inc()
        if asked and not any(item.answer for item in items):
            raise Refusal(
                503, "engine_failed", "the model answered none of the reviews", retry_after_s=5
            )

    def _ask(self, name: ArmName, texts: list[str]) -> list[Answer | None]:
        with self.metrics.engine_seconds.labels(name).time():
            return answer_texts(self._arms[name].analyzer, texts)

    def _exposure(
        self,
        request_id: str,
        number: int,
        item: _Item,
        arm: Arm,
        prediction: bytes,
        latency_ms: float,
    ) -> Exposure:
        return Exposure(
            request_id=request_id,
            item=number,
            experiment_id=self.deployment.experiment_id,
            deployment_id=self.deployment.deployment_id,
            unit=item.unit,
            arm=arm.name,
            model_version=self._arms[arm.name].model_version,
            text_sha256=hashlib.sha256(item.text.encode()).hexdigest(),
            prediction=prediction,
            latency_ms=latency_ms,
            created_at_us=time.time_ns() // 1000,
        )


def _result(request_id: str, number: int, item: _Item) -> dict[str, Any]:
    arm = item.arm
    result: dict[str, Any] = {
        "status": "ok" if item.answer else "error",
        "request_id": request_id,
        "item": number,
        "review_id": item.review_id,
        "arm": arm.name if arm else None,
        "model": {"name": arm.model_name, "version": arm.version} if arm else None,
    }
    if item.answer:
        return result | {"prediction": orjson.Fragment(item.answer[1])}
    error = item.error or _ENGINE_FAILED
    return result | {"error": error.model_dump(exclude_none=True)}
