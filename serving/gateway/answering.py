"""What the API does, routing apart: check, assign, answer, commit, and only then reply."""

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

from data.errors import ExperimentError, MatjipError
from serving.deployment import Arm, ArmName, Deployment
from serving.experiments.assignment import arm_of, unit_hash
from serving.experiments.store import (
    ExperimentStore,
    Exposure,
    Feedback,
    FeedbackResult,
    RequestIdReusedError,
)
from serving.experiments.writer import StoreWriter
from serving.gateway.arms import Answer, LoadedArm, answer_texts, load_arms
from serving.gateway.limits import Admission, Refusal, json_answer, read_json
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.schemas import AnalyzeIn, FeedbackIn, ItemError, first_problem, read_item
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
        self, settings: ServingSettings, deployment: Deployment, mask: Callable[[str], str]
    ):
        """Hold the parts; ``start`` loads the models and opens the store."""
        self.deployment = deployment
        self.metrics = GatewayMetrics(deployment)
        self._settings = settings
        self._mask = mask
        self._admission = Admission(settings.workers + settings.max_waiting)
        self._pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="engine")
        self._arms: dict[ArmName, LoadedArm] = {}
        self._store: ExperimentStore | None = None
        self._writer: StoreWriter | None = None
        self._reasons = ["the gateway is starting"]

    async def start(self) -> None:
        """Load every arm and open the store; what goes wrong becomes a reason of ``/ready``."""
        reasons = []
        try:
            self._arms = await asyncio.to_thread(
                load_arms, self.deployment, threads=self._settings.engine_threads
            )
        except MatjipError as error:
            reasons.append(str(error))
        try:
            self._store = await asyncio.to_thread(ExperimentStore, self._settings.store_url)
            self._writer = StoreWriter(self._store, max_waiting=self._settings.store_queue)
        except ExperimentError as error:
            reasons.append(str(error))
        for reason in reasons:
            _log.error("not ready: %s", reason)
        self._reasons = reasons

    async def stop(self) -> None:
        """Finish what runs, commit what waits, close the store."""
        self._pool.shutdown(wait=True)
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close, self._settings.shutdown_timeout_s)
        if self._store is not None:
            self._store.close()

    def reasons(self) -> list[str]:
        """Why the gateway should get no traffic; empty if it may."""
        failure = self._writer.failure if self._writer else None
        return [*self._reasons, *([f"the last commit failed: {failure}"] if failure else [])]

    async def analyze(self, request: Request) -> Response:
        """Answer one or many reviews.

        Raises:
            Refusal: the request as a whole cannot be answered.
        """
        started = time.perf_counter()
        request_id: str = request.state.request_id
        with self._admission.enter():
            self.metrics.inside.set(self._admission.inside)
            writer = self._writer_if_ready()
            items = self._read_items(await self._json(request), request_id)
            await self._answer(items)
            latency_ms = (time.perf_counter() - started) * 1000
            shown = [
                self._exposure(request_id, number, item, item.arm, item.answer[1], latency_ms)
                for number, item in enumerate(items)
                if item.arm and item.answer
            ]
            if shown:
                await _committed(writer, exposures=shown)
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

    async def feedback(self, request: Request) -> Response:
        """Take down how an answer turned out.

        Raises:
            Refusal: the feedback is not valid, or belongs to no answer.
        """
        writer = self._writer_if_ready()
        try:
            said = FeedbackIn.model_validate(await self._json(request))
        except ValidationError as error:
            field, message = first_problem(error)
            raise Refusal(422, "invalid_feedback", message, field=field) from error
        feedback = Feedback(
            request_id=said.request_id,
            item=said.item,
            created_at_us=time.time_ns() // 1000,
            event_id=said.event_id,
            sentiment=said.sentiment,
            reward=said.reward,
        )
        (result,) = await _committed(writer, feedback=[feedback])
        self.metrics.outcomes.labels(result).inc()
        if result == "unknown":
            raise Refusal(
                404,
                "unknown_answer",
                f"no review was answered as item {said.item!r} of request {said.request_id!r}; "
                "send the request_id and item of an answer whose status was ok",
            )
        if result == "conflict":
            raise Refusal(
                409,
                "event_id_reused",
                f"event {said.event_id!r} was sent before with another content; use a new event_id",
                field="event_id",
            )
        return json_answer(
            {"status": result, "request_id": said.request_id, "item": said.item}, 200
        )

    def _writer_if_ready(self) -> StoreWriter:
        if self._reasons or self._writer is None:
            raise Refusal(
                503, "not_ready", "the gateway is not ready; /ready says why", retry_after_s=5
            )
        return self._writer

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


async def _committed(
    writer: StoreWriter,
    exposures: list[Exposure] | None = None,
    feedback: list[Feedback] | None = None,
) -> list[FeedbackResult]:
    """Wait until the rows are on disk; what the store refuses, the request answers for."""
    try:
        return await asyncio.wrap_future(writer.submit(exposures or (), feedback or ()))
    except RequestIdReusedError as error:
        raise Refusal(409, "request_id_reused", str(error), field="X-Request-Id") from error
    except ExperimentError as error:
        raise Refusal(503, "store_unavailable", str(error), retry_after_s=1) from error


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
