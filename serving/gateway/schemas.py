"""What the API takes and gives. The answer's items hold the contract's predictions."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from data.contract import MAX_REVIEW_CHARACTERS, Identifier, Prediction, Sentiment
from serving.dealing import ArmName
from serving.experiments.metric_names import METRIC_PATTERN, NOT_FED_BACK

REQUEST_ID_PATTERN: Final = r"^[A-Za-z0-9._:\-]{1,128}$"
Unit = Annotated[str, StringConstraints(min_length=1, max_length=500)]
RequestId = Annotated[str, Field(pattern=REQUEST_ID_PATTERN)]


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is blank; send what the diner wrote")
    return text


ReviewText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_REVIEW_CHARACTERS),
    AfterValidator(_says_something),
]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ReviewIn(_Message):
    """One review to analyse."""

    review_id: Identifier | None = None
    text: ReviewText
    unit: Unit | None = Field(
        default=None, description="Who must always meet the same model; else the request's unit."
    )


class AnalyzeIn(_Message):
    """A request's envelope. Its reviews are checked one by one, so a bad one fails alone."""

    reviews: list[Any] = Field(min_length=1)
    unit: Unit | None = Field(
        default=None, description="Who must always meet the same model; else the request id."
    )


class FeedbackIn(_Message):
    """How one answer turned out: its true sentiment, a reward from 0 to 1, or a metric's value."""

    event_id: RequestId | None = Field(
        default=None, description="Makes a repeat harmless; else equal feedback counts once."
    )
    request_id: RequestId
    item: int = Field(
        default=0, ge=0, le=100_000, description="Position of the review in its request."
    )
    sentiment: Sentiment | None = None
    reward: float | None = Field(
        default=None, ge=0.0, le=1.0, description="From 0 (bad) to 1 (good)."
    )
    metric: str | None = Field(
        default=None,
        pattern=METRIC_PATTERN,
        description="Of an experiment, such as clicks; goes with value.",
    )
    value: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [self.sentiment is not None, self.reward is not None, self.value is not None]
        if sum(given) != 1 or (self.metric is None) != (self.value is None):
            raise ValueError("send either sentiment, or reward, or metric and value")
        if self.metric in NOT_FED_BACK:
            raise ValueError(
                f"metric={self.metric!r} is not fed back by that name; send sentiment or reward, "
                "or name another metric"
            )
        return self


class ErrorOut(BaseModel):
    """What is wrong, for programs (code) and for people (message)."""

    code: str
    message: str
    field: str | None = None
    request_id: str


class ErrorAnswer(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorOut


class ItemError(BaseModel):
    """Why one review of a request was not analysed."""

    code: str
    message: str
    field: str | None = None


class ModelOut(BaseModel):
    """The model that answered."""

    name: str
    version: str


class ItemOut(BaseModel):
    """The answer for one review."""

    status: Literal["ok", "error"]
    request_id: str
    item: int
    review_id: str | None
    arm: ArmName | None
    model: ModelOut | None
    prediction: Prediction | None = None
    error: ItemError | None = None


class AnalyzeOut(BaseModel):
    """The answer for a request, its items in the request's order."""

    request_id: str
    experiment_id: str
    deployment_id: str
    results: list[ItemOut]


class FeedbackOut(BaseModel):
    """What became of a feedback."""

    status: Literal["stored", "duplicate"]
    request_id: str
    item: int


class ArmOut(BaseModel):
    """One arm of the deployment that answers."""

    name: ArmName
    model: ModelOut
    share: float


class LanguageArmOut(ArmOut):
    """One arm of the language deployment. An arm whose server is down answers ``degraded``."""

    endpoint: Literal["in_process", "openai"]
    state: Literal["up", "down", "model_missing"]


class RouteOut(BaseModel):
    """Who answers everybody of a deployment. No ``arm``: units are dealt."""

    arm: ArmName | None
    number: int = Field(description="Of the route, the last one of its deployment; 0 without any.")


class LanguageReadyOut(BaseModel):
    """The language deployment that answers."""

    experiment_id: str
    deployment_id: str
    route: RouteOut
    arms: list[LanguageArmOut]


class EmbeddingReadyOut(BaseModel):
    """The embedding model that answers, once it is loaded."""

    deployment_id: str
    model: ModelOut
    dimensions: int | None = None
    engine: str | None = None


class ReadyOut(BaseModel):
    """Whether the gateway may get traffic, and if not, why.

    A warning is none: a new deployment that could not be loaded leaves the old one answering.
    """

    ready: bool
    reasons: list[str]
    warnings: list[str] = []
    experiment_id: str | None = None
    deployment_id: str | None = None
    route: RouteOut | None = None
    arms: list[ArmOut] = []
    embedding: EmbeddingReadyOut | None = None
    language: LanguageReadyOut | None = None


_ITEM_CODES: Final = {
    ("text", "missing"): "text_missing",
    ("text", "string_type"): "text_not_a_string",
    ("text", "string_too_short"): "text_empty",
    ("text", "string_too_long"): "text_too_long",
    ("text", "value_error"): "text_blank",
    ("", "model_type"): "not_an_object",
}


def first_problem(error: ValidationError) -> tuple[str | None, str]:
    """The first wrong field, and a message that names every wrong one but repeats no value."""
    said = []
    for line in error.errors(include_input=False, include_url=False, include_context=False):
        name = ".".join(str(part)[:64] for part in line["loc"])
        text = line["msg"].removeprefix("Value error, ")
        if not name and line["type"] == "model_type":
            text = "the body is no JSON object; send {…}"
        said.append((name or None, f"{name}: {text}" if name else text))
    return said[0][0], "; ".join(text for _, text in said[:20])


def read_item(raw: object) -> ReviewIn | ItemError:
    """A review, or what is wrong with it."""
    try:
        return ReviewIn.model_validate(raw)
    except ValidationError as error:
        field, message = first_problem(error)
        code = _ITEM_CODES.get((field or "", error.errors()[0]["type"]), "invalid_item")
        return ItemError(code=code, message=message, field=field)


ANALYZE_EXAMPLES: Final[dict[str, Any]] = {
    "one review": {
        "value": {"reviews": [{"text": "국물이 진하고 사장님이 친절해요"}], "unit": "account-17"}
    },
    "several, from several accounts": {
        "value": {
            "reviews": [
                {"review_id": "r1", "text": "존맛ㅠㅠ 또 갈게요", "unit": "account-17"},
                {"review_id": "r2", "text": "맛은 있는데 대기가 너무 길어요", "unit": "account-18"},
            ]
        }
    },
}
FEEDBACK_EXAMPLES: Final[dict[str, Any]] = {
    "the true sentiment": {"value": {"request_id": "b7e1", "item": 0, "sentiment": "positive"}},
    "a reward": {"value": {"request_id": "b7e1", "item": 1, "reward": 0.5, "event_id": "click-9"}},
}


def analyze_request_schema(max_reviews: int) -> dict[str, Any]:
    """JSON Schema of an analyse request, for the OpenAPI document."""
    schema = AnalyzeIn.model_json_schema()
    schema["properties"]["reviews"] |= {
        "items": ReviewIn.model_json_schema(),
        "maxItems": max_reviews,
    }
    return schema
