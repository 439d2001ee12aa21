"""The contract: what a restaurant, a review, a label and a prediction are.

Every other module takes its words from here: label schema, Label Studio config (data/labelling.py),
training targets, decoding, evaluation and the API's answers. A change of meaning raises
``CONTRACT_VERSION``; data of another major version is refused.

Source of the taxonomies: the labelling guideline, data/gold/guideline.md.
"""

from datetime import date
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

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

MAX_SPAN_CHARACTERS: Final = 200
MAX_CITATIONS: Final = 6
MAX_BULLETS: Final = 5
MAX_BULLET_CHARACTERS: Final = 80
MAX_SENTENCE_CHARACTERS: Final = 200
MAX_OVERALL_CHARACTERS: Final = 400
MAX_CLAIM_CHARACTERS: Final = 40
MAX_REPRESENTATIVE: Final = 4
MAX_DISTINCT: Final = 3

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
Part = TypeVar("Part")


def _canonical_emotions(emotions: tuple[Emotion, ...]) -> tuple[Emotion, ...]:
    return tuple(emotion for emotion in EMOTIONS if emotion in emotions)


def _canonical_aspects(aspects: dict[Aspect, Part]) -> dict[Aspect, Part]:
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


class Citation(_Record):
    """A verbatim part of one review: what a claim rests on."""

    review_id: Identifier
    span: str = Field(min_length=1, max_length=MAX_SPAN_CHARACTERS)


Citations = Annotated[tuple[Citation, ...], Field(min_length=1, max_length=MAX_CITATIONS)]


class Bullet(_Record):
    """One point of an aspect's summary, and the reviews that make it."""

    text: str = Field(min_length=1, max_length=MAX_BULLET_CHARACTERS)
    polarity: Polarity
    evidence: Citations


class AspectSummary(_Record):
    """What the reviews say of one aspect. Its polarity follows from its bullets, if it has any."""

    polarity: AspectPolarity
    sentence: str = Field(min_length=1, max_length=MAX_SENTENCE_CHARACTERS)
    bullets: tuple[Bullet, ...] = Field(max_length=MAX_BULLETS)

    @model_validator(mode="after")
    def _polarity_follows(self) -> Self:
        found = {bullet.polarity for bullet in self.bullets}
        if found and self.polarity != aspect_polarity(found):
            raise ValueError(
                f"polarity is {self.polarity!r}, the bullets make it {aspect_polarity(found)!r}; "
                "set it so"
            )
        return self


class CategorySummary(_Record):
    """What a restaurant's reviews say, overall and by aspect; what nobody spoke of is left out."""

    overall: str = Field(min_length=1, max_length=MAX_OVERALL_CHARACTERS)
    aspects: Annotated[dict[Aspect, AspectSummary], AfterValidator(_canonical_aspects)]


class Strength(_Record):
    """Something that diners praise. Its support is the number of distinct reviews it cites."""

    aspect: Aspect
    claim: str = Field(min_length=1, max_length=MAX_CLAIM_CHARACTERS)
    evidence: Citations


class Strengths(_Record):
    """Often praised here; and praised here more than at comparable restaurants."""

    representative: tuple[Strength, ...] = Field(max_length=MAX_REPRESENTATIVE)
    distinct: tuple[Strength, ...] = Field(max_length=MAX_DISTINCT)


class RestaurantSummary(_Record):
    """What annotators wrote of one restaurant: one row of a file of summaries."""

    restaurant_id: Identifier
    summary: CategorySummary
    strengths: Strengths


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of each public record, by name; the API's OpenAPI document holds the same."""
    records = (Restaurant, Review, Label, LabelledReview, Prediction, CategorySummary, Strengths)
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
