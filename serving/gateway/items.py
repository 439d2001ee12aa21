"""The reviews of one analyse request: what came, what was answered, what the caller is told."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError

from data.errors import DeadlineError, EngineError
from serving.deployment import Arm, Deployment
from serving.experiments.assignment import Why, unit_hash
from serving.experiments.store import Exposure
from serving.gateway.arms import Answered
from serving.gateway.limits import Refusal
from serving.gateway.routing import Routing
from serving.gateway.schemas import AnalyzeIn, ItemError, first_problem, read_item

ENGINE_FAILED: Final = ItemError(
    code="engine_failed", message="the model could not answer this review; send it again"
)
DEADLINE_PASSED: Final = ItemError(
    code="deadline_passed", message="the model did not answer this review in time; send it again"
)


@dataclass(slots=True)
class Item:
    """One review on its way through the gateway.

    Attributes:
        prediction: its JSON, as it is sent and stored.
        compute_ms: what the answer took of the engine's time.
        error: the caller's own where there is no arm; else the arm's.
    """

    review_id: str | None
    text: str = ""
    unit: str = ""
    arm: Arm | None = None
    why: Why = "assigned"
    prediction: bytes | None = None
    compute_ms: float | None = None
    error: ItemError | None = None

    def take(self, answer: Answered | EngineError) -> None:
        """Keep what came of asking the arm."""
        if isinstance(answer, Answered):
            self.prediction, self.compute_ms = answer
        else:
            self.error = DEADLINE_PASSED if isinstance(answer, DeadlineError) else ENGINE_FAILED

    def mirrored(self, arm: Arm) -> "Item":
        """The same review for another arm of a shadow, not asked yet."""
        return Item(self.review_id, text=self.text, unit=self.unit, arm=arm, why="mirrored")


def read_items(body: object, request_id: str, *, max_reviews: int) -> list[tuple[Any, str]]:
    """Each review as it came, and the unit that holds where it names none.

    Raises:
        Refusal: 422, the envelope is wrong.
    """
    try:
        envelope = AnalyzeIn.model_validate(body)
    except ValidationError as error:
        field, message = first_problem(error)
        raise Refusal(422, "invalid_request", message, field=field) from error
    if len(envelope.reviews) > max_reviews:
        raise Refusal(
            422,
            "too_many_reviews",
            f"reviews: {len(envelope.reviews)} in one request; send at most {max_reviews}",
            field="reviews",
        )
    unit = envelope.unit or request_id
    return [(raw, unit) for raw in envelope.reviews]


def assign(
    raw: object,
    default_unit: str,
    deployment: Deployment,
    routing: Routing[Arm],
) -> Item:
    """A review with its unit and arm, or with what is wrong with it; its text is not masked yet."""
    review = read_item(raw)
    if isinstance(review, ItemError):
        given = raw.get("review_id") if isinstance(raw, dict) else None
        return Item(given if isinstance(given, str) else None, error=review)
    unit = unit_hash(deployment.salt, review.unit or default_unit)
    arm, why = routing.meet(deployment, unit)
    return Item(review.review_id, text=review.text, unit=unit, arm=arm, why=why)


def exposure(
    item: Item,
    number: int,
    *,
    request_id: str,
    deployment: Deployment,
    latency_ms: float,
    at_us: int,
) -> Exposure | None:
    """What the store keeps of an item, answered or failed; None where no arm was asked."""
    if item.arm is None:
        return None
    error = item.error or ENGINE_FAILED
    return Exposure(
        request_id=request_id,
        item=number,
        experiment_id=deployment.experiment_id,
        deployment_id=deployment.deployment_id,
        unit=item.unit,
        arm=item.arm.name,
        model_version=f"{item.arm.model_name}/{item.arm.version}",
        text_sha256=hashlib.sha256(item.text.encode()).hexdigest(),
        prediction=item.prediction or orjson.dumps({"error": error.code}),
        latency_ms=latency_ms,
        created_at_us=at_us,
        why=item.why,
        status="ok" if item.prediction else "failed",
        cost=item.compute_ms,
    )


def result(item: Item, number: int, request_id: str) -> dict[str, Any]:
    """What the caller is told of an item."""
    arm = item.arm
    said: dict[str, Any] = {
        "status": "ok" if item.prediction else "error",
        "request_id": request_id,
        "item": number,
        "review_id": item.review_id,
        "arm": arm.name if arm else None,
        "model": {"name": arm.model_name, "version": arm.version} if arm else None,
    }
    if item.prediction:
        return said | {"prediction": orjson.Fragment(item.prediction)}
    error = item.error or ENGINE_FAILED
    return said | {"error": error.model_dump(exclude_none=True)}
