"""The contract: what a restaurant, a review, a label and a prediction are.

Every other module takes its words from here: label schema, Label Studio config (data/labelling.py),
training targets, decoding, evaluation and the API's answers. A change of meaning raises
``CONTRACT_VERSION``; data of another major version is refused.

Source of the taxonomies: the labelling guideline, data/gold/guideline.md.
"""

from datetime import date
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from data.errors import ContractError

CONTRACT_VERSION: Final = "1.0"
MAX_REVIEW_CHARACTERS: Final = 10_000
"""Longer texts are quarantined on ingest and answered with 422 by the API."""

Sentiment = Literal["negative", "neutral", "positive"]
Intensity = Literal[-2, -1, 0, 1, 2]
Emotion = Literal[
    "joy",
    "gratitude",
    "anticipation",
    "surprise",
    "disappointment",
    "sadness",
    "anger",
    "disgust",
]
Aspect = Literal["food", "service", "atmosphere", "price", "hygiene", "access"]
Polarity = Literal["negative", "neutral", "positive"]
AspectPolarity = Literal["negative", "neutral", "positive", "mixed"]
AspectState = Literal["absent", "negative", "neutral", "positive", "mixed"]
PriceBand = Literal["under_10k", "10k_20k", "20k_40k", "over_40k"]
"""Typical spend per person, in Korean won."""
Phenomenon = Literal[
    "slang",
    "typo",
    "spacing",
    "emoji",
    "sarcasm",
    "negation",
    "mixed",
    "delivery",
    "factual",
]

SENTIMENTS: Final[tuple[Sentiment, ...]] = get_args(Sentiment)
INTENSITIES: Final[tuple[Intensity, ...]] = get_args(Intensity)
EMOTIONS: Final[tuple[Emotion, ...]] = get_args(Emotion)
ASPECTS: Final[tuple[Aspect, ...]] = get_args(Aspect)
POLARITIES: Final[tuple[Polarity, ...]] = get_args(Polarity)
ASPECT_STATES: Final[tuple[AspectState, ...]] = get_args(AspectState)
PHENOMENA: Final[tuple[Phenomenon, ...]] = get_args(Phenomenon)
TASKS: Final = ("sentiment", "intensity", "emotions", "aspects")

KOREAN: Final[dict[str, str]] = {
    "negative": "부정",
    "neutral": "중립",
    "positive": "긍정",
    "mixed": "복합",
    "absent": "언급 없음",
    "-2": "매우 부정",
    "-1": "약간 부정",
    "0": "중립",
    "1": "약간 긍정",
    "2": "매우 긍정",
    "joy": "기쁨",
    "gratitude": "감동·감사",
    "anticipation": "기대",
    "surprise": "놀람",
    "disappointment": "실망",
    "sadness": "슬픔",
    "anger": "분노",
    "disgust": "불쾌",
    "food": "음식",
    "service": "서비스",
    "atmosphere": "분위기",
    "price": "가격",
    "hygiene": "위생",
    "access": "접근성·대기",
}

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^\S+$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


def _canonical_emotions(emotions: tuple[Emotion, ...]) -> tuple[Emotion, ...]:
    return tuple(emotion for emotion in EMOTIONS if emotion in emotions)


def _canonical_aspects(
    aspects: "dict[Aspect, AspectPolarity]",
) -> "dict[Aspect, AspectPolarity]":
    return {aspect: aspects[aspect] for aspect in ASPECTS if aspect in aspects}


def _canonical_phenomena(phenomena: tuple[Phenomenon, ...]) -> tuple[Phenomenon, ...]:
    return tuple(phenomenon for phenomenon in PHENOMENA if phenomenon in phenomena)


def _step_of_key(key: object) -> object:
    return int(key) if isinstance(key, str) else key


# JSON's keys are text, so a prediction read back from its JSON names the steps "-2" … "2".
IntensityKey = Annotated[Intensity, BeforeValidator(_step_of_key)]
# Sets are kept as tuples in the taxonomy's order, so that equal labels have equal bytes and hashes.
EmotionSet = Annotated[tuple[Emotion, ...], AfterValidator(_canonical_emotions)]
AspectPolarities = Annotated[dict[Aspect, AspectPolarity], AfterValidator(_canonical_aspects)]
PhenomenonSet = Annotated[tuple[Phenomenon, ...], AfterValidator(_canonical_phenomena)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Restaurant(_Record):
    """A restaurant as far as a comparison needs it."""

    restaurant_id: Identifier
    name: str = Field(min_length=1, max_length=200)
    category: str = Field(min_length=1, max_length=50)
    region: str = Field(min_length=1, max_length=100)
    price_band: PriceBand


class Review(_Record):
    """One review as it came in. ``text`` is what the diner typed, personal data masked."""

    review_id: Identifier
    text: str = Field(min_length=1, max_length=MAX_REVIEW_CHARACTERS)
    restaurant_id: Identifier | None = None
    written_on: date | None = None


class Evidence(_Record):
    """A verbatim part of a review's text: ``text[start:end]``, in code points."""

    aspect: Aspect
    polarity: Polarity
    start: int = Field(ge=0)
    end: int = Field(gt=0)
    text: str = Field(min_length=1)


def aspect_polarity(polarities: set[Polarity]) -> AspectPolarity:
    """The polarity of an aspect from those of its evidence: both ends make it mixed."""
    if not polarities:
        raise ValueError("an aspect without evidence has no polarity; leave it out")
    if {"negative", "positive"} <= polarities:
        return "mixed"
    if "negative" in polarities:
        return "negative"
    return "positive" if "positive" in polarities else "neutral"


class Label(_Record):
    """What annotators say of one review. A task that was not labelled is ``None``, not empty."""

    sentiment: Sentiment | None = None
    intensity: Intensity | None = None
    emotions: EmotionSet | None = None
    aspects: AspectPolarities | None = None
    evidence: tuple[Evidence, ...] = ()
    phenomena: PhenomenonSet = ()

    @model_validator(mode="after")
    def _something_is_labelled(self) -> Self:
        if all(getattr(self, task) is None for task in TASKS):
            raise ValueError("no task is labelled; label at least one of " + ", ".join(TASKS))
        return self


class LabelledReview(_Record):
    """A review with its adjudicated label: one row of a snapshot."""

    review: Review
    label: Label


class SentimentPrediction(_Record):
    """The likeliest sentiment, and a calibrated probability for each."""

    label: Sentiment
    probabilities: dict[Sentiment, Probability]


class IntensityPrediction(_Record):
    """The likeliest step, and the expected value on the scale from -2 to +2."""

    label: Intensity
    expected: float = Field(ge=-2.0, le=2.0)
    probabilities: dict[IntensityKey, Probability]


class EmotionsPrediction(_Record):
    """Emotions whose score reaches their threshold (none is an empty list), and every score."""

    labels: tuple[Emotion, ...]
    scores: dict[Emotion, Probability]


class AspectPrediction(_Record):
    """The state of one aspect, and a calibrated probability for each.

    An aspect counts as spoken of when 1 - P(absent) reaches its threshold, which is chosen on
    validation data; its label is then the likeliest of the other states.
    """

    label: AspectState
    probabilities: dict[AspectState, Probability]


class Prediction(_Record):
    """What a model says of one review; the item of the API's answer."""

    contract_version: Literal["1.0"] = CONTRACT_VERSION
    sentiment: SentimentPrediction
    intensity: IntensityPrediction
    emotions: EmotionsPrediction
    aspects: dict[Aspect, AspectPrediction]
    windows: int = Field(
        ge=1, description="Windows that the text was read in; 1 unless it is long."
    )


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of each public record, by name; the API's OpenAPI document holds the same."""
    records = (Restaurant, Review, Label, LabelledReview, Prediction)
    return {
        record.__name__: record.model_json_schema() | {"$comment": f"contract {CONTRACT_VERSION}"}
        for record in records
    }


def check_contract_version(version: str, *, where: str) -> None:
    """Refuse data of another major version.

    Raises:
        ContractError: the version is not one this code can read.
    """
    if version.split(".", maxsplit=1)[0] != CONTRACT_VERSION.split(".")[0]:
        raise ContractError(
            f"{where}: contract_version is {version!r}, this code reads {CONTRACT_VERSION!r}; "
            "convert the data, or use the matjip release that wrote it"
        )
