"""How an answer turned out, taken down: POST /v1/feedback."""

from fastapi import Request, Response
from pydantic import ValidationError

from serving.experiments.store import Feedback, FeedbackResult
from serving.experiments.tables import REWARD
from serving.gateway.limits import Refusal, json_answer, read_json
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.record import Record
from serving.gateway.schemas import FeedbackIn, first_problem
from serving.gateway.settings import ServingSettings


async def take_feedback(
    request: Request, *, record: Record, settings: ServingSettings, metrics: GatewayMetrics
) -> Response:
    """Take down how an answer turned out, whichever part of the gateway gave it.

    Raises:
        Refusal: the feedback is not valid, or belongs to no answer.
    """
    record.refuse_unless_open()
    try:
        said = FeedbackIn.model_validate(
            await read_json(
                request, max_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s
            )
        )
    except ValidationError as error:
        field, message = first_problem(error)
        raise Refusal(422, "invalid_feedback", message, field=field) from error
    feedback = Feedback(
        request_id=said.request_id,
        item=said.item,
        created_at_us=record.now_us(),
        event_id=said.event_id,
        sentiment=said.sentiment,
        reward=said.value if said.metric else said.reward,
        metric=said.metric or REWARD,
    )
    (result,) = await record.commit(feedback=[feedback])
    metrics.outcomes.labels(result).inc()
    _refuse_unless_taken(result, said)
    return json_answer({"status": result, "request_id": said.request_id, "item": said.item}, 200)


def _refuse_unless_taken(result: FeedbackResult, said: FeedbackIn) -> None:
    if result == "unknown":
        raise Refusal(
            404,
            "unknown_answer",
            f"nothing was answered as item {said.item!r} of request {said.request_id!r}; "
            "send the request_id and item of an answer whose status was ok",
        )
    if result == "no_sentiment":
        raise Refusal(
            422,
            "invalid_feedback",
            f"sentiment: item {said.item!r} of request {said.request_id!r} is an answer without a "
            "sentiment; send a reward",
            field="sentiment",
        )
    if result == "conflict":
        raise Refusal(
            409,
            "event_id_reused",
            f"event {said.event_id!r} was sent before with another content; use a new event_id",
            field="event_id",
        )
