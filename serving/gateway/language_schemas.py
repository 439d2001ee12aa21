"""What the language routes take and give; OpenAI's words where the route is OpenAI's."""

import re
from datetime import date
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from data.contract import CategorySummary, Identifier, Strengths
from data.prompts import Task
from serving.dealing import ArmName
from serving.gateway.limits import Refusal
from serving.gateway.schemas import ModelOut, ReviewText, Unit, first_problem
from serving.summaries import Status

UNIT_HEADER: Final = "X-Matjip-Unit"
IGNORED_PREFIX: Final = "guided_"
CONSTRAINTS: Final = frozenset(
    {"json", "json_object", "regex", "choice", "grammar", "structural_tag"}
)
_ISO_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def _iso_date(value: object) -> object:
    """Only the one way of writing a date: a number would be taken for seconds since 1970."""
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        return date.fromisoformat(value)
    raise ValueError("not a date; write YYYY-MM-DD")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ReviewToRead(_Message):
    """One review of the restaurant."""

    review_id: Identifier
    text: ReviewText
    written_on: Annotated[date, BeforeValidator(_iso_date)] | None = None


class SummaryIn(_Message):
    """A restaurant's reviews. None at all is no error: the answer says that there is no data."""

    restaurant_id: Identifier
    reviews: list[ReviewToRead]
    unit: Unit | None = Field(
        default=None, description="Who must always meet the same model; else the restaurant."
    )

    @field_validator("reviews")
    @classmethod
    def _each_id_once(cls, reviews: list[ReviewToRead]) -> list[ReviewToRead]:
        seen: set[str] = set()
        for review in reviews:
            if review.review_id in seen:
                raise ValueError("a review_id comes twice; send each review once")
            seen.add(review.review_id)
        return reviews


class TokensOut(BaseModel):
    """Tokens of all steps together."""

    prompt: int
    completion: int


class SummaryOut(BaseModel):
    """A restaurant's summary. ``reasons`` is empty if and only if ``status`` is ok.

    Citations are verbatim in the reviews as the gateway reads them: with personal data masked,
    letter for letter.
    """

    request_id: str
    experiment_id: str
    deployment_id: str
    restaurant_id: str
    arm: ArmName
    model: ModelOut
    prompts: dict[Task, str]
    status: Status
    reasons: list[str]
    notes: list[str]
    summary: CategorySummary | None
    strengths: Strengths | None
    tokens: TokensOut
    timings_ms: dict[str, float]


class TextPart(_Message):
    """A part of a message; pictures and sound are not taken."""

    type: Literal["text"]
    text: str


class ChatMessage(_Message):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    def text(self) -> str:
        """The whole turn."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(_Message):
    """What a stream ends with."""

    include_usage: bool = False


class ResponseFormat(_Message):
    """How decoding is constrained, as OpenAI says it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("send json_schema with type json_schema, and only then")
        if self.json_schema is not None and not isinstance(self.json_schema.get("schema"), dict):
            raise ValueError('json_schema holds {"name": …, "schema": {…}}')
        return self


class _Generation(_Message):
    """The fields that both of OpenAI's routes have; what is not here is refused, not dropped."""

    model: str | None = Field(default=None, description="Taken and replaced by the arm's model.")
    user: Unit | None = Field(default=None, description="The unit, where no header names one.")
    max_tokens: int | None = Field(default=None, ge=1, le=131_072)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    n: int | None = Field(default=None, ge=1, le=8)
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=8)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = Field(
        default=None, description="How decoding is constrained, as vLLM says it."
    )

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        said = self.structured_outputs
        if said is None:
            return self
        if len(said) != 1 or not set(said) <= CONSTRAINTS:
            raise ValueError(f"structured_outputs holds one of {sorted(CONSTRAINTS)}")
        if self.response_format is not None:
            raise ValueError("send either response_format or structured_outputs")
        return self


class ChatIn(_Generation):
    """A chat, as OpenAI's API takes it."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=131_072)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class CompletionIn(_Generation):
    """A text to go on with, as OpenAI's API takes it."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=64)]
    logprobs: int | None = Field(default=None, ge=0, le=20)


def read_summary(body: object, most: int) -> SummaryIn:
    """A summary's body, read strictly: one bad review refuses it, for the answer is about all.

    Raises:
        Refusal: 422, a field is missing, unknown or out of range, or there are over ``most``.
    """
    try:
        asked = SummaryIn.model_validate(body)
    except ValidationError as error:
        field, message = first_problem(error)
        raise Refusal(422, "invalid_request", message, field=field) from error
    if len(asked.reviews) > most:
        raise Refusal(
            422,
            "too_many_reviews",
            f"reviews: {len(asked.reviews)} in one request; send at most {most}, the newest",
            field="reviews",
        )
    return asked


def summary_request_schema(max_reviews: int) -> dict[str, Any]:
    """JSON Schema of a summary request, for the OpenAPI document."""
    schema = SummaryIn.model_json_schema()
    schema["properties"]["reviews"]["maxItems"] = max_reviews
    return schema


def read_generation(kind: type[ChatIn] | type[CompletionIn], body: object) -> ChatIn | CompletionIn:
    """A pass-through's body, read strictly.

    Raises:
        Refusal: 422, a field is missing, unknown or out of range; or vLLM would ignore it.
    """
    ignored = [name for name in body if _is_ignored(name)] if isinstance(body, dict) else []
    if ignored:
        raise Refusal(
            422,
            "ignored_field",
            f"{', '.join(ignored[:8])}: vLLM answers without heeding it; send structured_outputs "
            "or response_format",
            field=ignored[0],
        )
    try:
        asked = kind.model_validate(body)
        orjson.dumps(body)
    except ValidationError as error:
        field, message = first_problem(error)
        raise Refusal(422, "invalid_request", message, field=field) from error
    except TypeError as error:  # it can be read deeper than it can be written
        raise Refusal(
            422, "invalid_request", "the body is nested too deep; send a flatter schema"
        ) from error
    return asked


def _is_ignored(name: object) -> bool:
    return isinstance(name, str) and name.startswith(IGNORED_PREFIX)


SUMMARY_EXAMPLES: Final[dict[str, Any]] = {
    "two reviews": {
        "value": {
            "restaurant_id": "ga-01",
            "reviews": [
                {"review_id": "r1", "text": "국물이 진하고 사장님이 친절해요"},
                {
                    "review_id": "r2",
                    "text": "맛은 있는데 대기가 길어요",
                    "written_on": "2026-03-01",
                },
            ],
        }
    }
}
COMPLETION_EXAMPLES: Final[dict[str, Any]] = {
    "short": {"value": {"prompt": "국물이 진하고", "max_tokens": 16, "user": "account-17"}}
}
CHAT_EXAMPLES: Final[dict[str, Any]] = {
    "constrained": {
        "value": {
            "messages": [{"role": "user", "content": "국물이 진하다는 후기의 감성은?"}],
            "user": "account-17",
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "name": "sentiment",
                    "schema": {"enum": ["negative", "neutral", "positive"]},
                },
            },
        }
    }
}
