import itertools
from typing import get_args

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data import contract
from data.contract import (
    ASPECT_STATES,
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    KOREAN,
    MAX_BULLET_CHARACTERS,
    MAX_BULLETS,
    MAX_CITATIONS,
    MAX_CLAIM_CHARACTERS,
    MAX_DISTINCT,
    MAX_OVERALL_CHARACTERS,
    MAX_REPRESENTATIVE,
    MAX_REVIEW_CHARACTERS,
    MAX_SENTENCE_CHARACTERS,
    MAX_SPAN_CHARACTERS,
    PHENOMENA,
    POLARITIES,
    SENTIMENTS,
    AspectPrediction,
    AspectSummary,
    Bullet,
    CategorySummary,
    Citation,
    EmotionsPrediction,
    Evidence,
    IntensityPrediction,
    Label,
    LabelledReview,
    Prediction,
    Restaurant,
    RestaurantSummary,
    Review,
    SentimentPrediction,
    Strength,
    Strengths,
    aspect_polarity,
    check_contract_version,
    json_schemas,
)
from data.errors import ContractError

LABEL = {
    "sentiment": "negative",
    "intensity": -1,
    "emotions": ["anger", "joy"],
    "aspects": {"price": "negative", "food": "mixed"},
    "evidence": [
        {"aspect": "food", "polarity": "positive", "start": 0, "end": 2, "text": "맛은"},
        {"aspect": "price", "polarity": "negative", "start": 3, "end": 5, "text": "비싸"},
    ],
    "phenomena": ["mixed", "slang"],
}
CITATION = {"review_id": "r1", "span": "맛은"}
BULLET = {"text": "맛이 좋다", "polarity": "positive", "evidence": [CITATION]}
ASPECT_SUMMARY = {"polarity": "positive", "sentence": "맛이 좋다는 평이다.", "bullets": [BULLET]}
SUMMARY = {"overall": "맛이 좋은 집이다.", "aspects": {"food": ASPECT_SUMMARY}}
STRENGTH = {"aspect": "food", "claim": "오래 끓여 진한 국물이 좋다", "evidence": [CITATION]}
STRENGTHS = {"representative": [STRENGTH], "distinct": []}


def a_prediction() -> Prediction:
    return Prediction(
        sentiment=SentimentPrediction(
            label="neutral", probabilities=dict.fromkeys(SENTIMENTS, 1 / 3)
        ),
        intensity=IntensityPrediction(
            label=0, expected=0.0, probabilities=dict.fromkeys(INTENSITIES, 0.2)
        ),
        emotions=EmotionsPrediction(labels=(), scores=dict.fromkeys(EMOTIONS, 0.1)),
        aspects={
            aspect: AspectPrediction(
                label="absent", probabilities=dict.fromkeys(ASPECT_STATES, 0.2)
            )
            for aspect in ASPECTS
        },
        windows=1,
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sentiment", "good"),
        ("sentiment", "Positive"),
        ("sentiment", "mixed"),
        ("intensity", 3),
        ("intensity", -3),
        ("intensity", 0.5),
        ("intensity", "1"),
        ("emotions", ["joy", "boredom"]),
        ("emotions", "joy"),
        ("aspects", {"parking": "negative"}),
        ("aspects", {"food": "absent"}),
        ("aspects", ["food"]),
        ("phenomena", ["irony"]),
        ("stars", 5),
    ],
)
def test_values_outside_the_closed_sets_are_refused_by_field(field, value):
    with pytest.raises(ValidationError) as refused:
        Label.model_validate(LABEL | {field: value})
    assert {str(error["loc"][0]) for error in refused.value.errors()} == {field}


def test_every_value_of_the_closed_sets_is_taken_and_comes_back():
    for sentiment, intensity in itertools.product(SENTIMENTS, INTENSITIES):
        label = Label(sentiment=sentiment, intensity=intensity)
        assert (label.sentiment, label.intensity) == (sentiment, intensity)
    assert Label(emotions=EMOTIONS).emotions == EMOTIONS
    for polarity in get_args(contract.AspectPolarity):
        assert Label(aspects={"food": polarity}).aspects == {"food": polarity}


def test_all_names_that_people_see_have_korean_words_and_no_others_do():
    names = {*SENTIMENTS, *map(str, INTENSITIES), *EMOTIONS, *ASPECTS, *ASPECT_STATES}
    assert set(KOREAN) == names
    assert len({KOREAN[emotion] for emotion in EMOTIONS}) == len(EMOTIONS)


@given(
    st.permutations(EMOTIONS[:4]),
    st.permutations([("food", "mixed"), ("price", "negative"), ("access", "neutral")]),
    st.permutations(PHENOMENA[:3]),
)
def test_equal_labels_have_equal_bytes_in_whatever_order_they_were_written(
    emotions, aspects, phenomena
):
    label = Label(
        sentiment="positive",
        emotions=(*emotions, emotions[0]),
        aspects=dict(aspects),
        phenomena=tuple(phenomena),
    )
    canonical = Label(
        sentiment="positive",
        emotions=EMOTIONS[:4],
        aspects={"food": "mixed", "price": "negative", "access": "neutral"},
        phenomena=PHENOMENA[:3],
    )
    assert label == canonical
    assert label.model_dump_json() == canonical.model_dump_json()


def test_a_label_needs_one_task_and_unlabelled_is_not_empty():
    with pytest.raises(ValidationError, match="no task is labelled"):
        Label(phenomena=("slang",))
    unlabelled, none_felt = Label(sentiment="neutral"), Label(sentiment="neutral", emotions=())
    assert unlabelled.emotions is None
    assert none_felt.emotions == ()
    assert unlabelled != none_felt


@pytest.mark.parametrize("text", ["", "가" * (MAX_REVIEW_CHARACTERS + 1), "\ud83d", None, 5])
def test_texts_out_of_range_are_refused(text):
    with pytest.raises(ValidationError) as refused:
        Review(review_id="r1", text=text)
    assert refused.value.errors()[0]["loc"] == ("text",)


def test_the_longest_text_is_counted_in_characters_not_bytes():
    assert len(Review(review_id="r1", text="😋" * MAX_REVIEW_CHARACTERS).text) == 10_000


@pytest.mark.parametrize("identifier", ["", "two words", "line\n", "a" * 201])
def test_identifiers_are_one_word(identifier):
    with pytest.raises(ValidationError):
        Review(review_id=identifier, text="맛있어요")


@pytest.mark.parametrize(
    "evidence",
    [
        {"start": -1},
        {"end": 0},
        {"text": ""},
        {"polarity": "mixed"},
        {"aspect": "parking"},
    ],
)
def test_evidence_out_of_range_is_refused(evidence):
    good = {"aspect": "food", "polarity": "positive", "start": 0, "end": 1, "text": "맛"}
    assert Evidence.model_validate(good).text == "맛"
    with pytest.raises(ValidationError):
        Evidence.model_validate(good | evidence)


@pytest.mark.parametrize(
    ("polarities", "expected"),
    [
        ({"positive"}, "positive"),
        ({"negative"}, "negative"),
        ({"neutral"}, "neutral"),
        ({"neutral", "positive"}, "positive"),
        ({"neutral", "negative"}, "negative"),
        ({"negative", "positive"}, "mixed"),
        (set(POLARITIES), "mixed"),
    ],
)
def test_an_aspects_polarity_follows_from_its_evidence(polarities, expected):
    assert aspect_polarity(polarities) == expected


def test_an_aspect_without_evidence_has_no_polarity():
    with pytest.raises(ValueError, match="without evidence"):
        aspect_polarity(set())


@pytest.mark.parametrize(
    ("record", "values"),
    [
        (Review, {"review_id": "r1", "text": "굿", "stars": 5}),
        (
            Restaurant,
            {
                "restaurant_id": "s1",
                "name": "맛집",
                "category": "한식",
                "region": "서울",
                "price_band": "under_10k",
                "phone": "02",
            },
        ),
        (
            LabelledReview,
            {"review": {"review_id": "r1", "text": "굿"}, "label": LABEL, "split": "test"},
        ),
    ],
)
def test_keys_that_the_contract_does_not_know_are_refused(record, values):
    extra = list(values)[-1]
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        record.model_validate(values)
    assert record.model_validate({key: values[key] for key in values if key != extra})


def test_records_do_not_change():
    label = Label(sentiment="positive")
    with pytest.raises(ValidationError, match="frozen"):
        label.sentiment = "negative"  # type: ignore[misc]


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_a_probability_is_between_0_and_1(value):
    with pytest.raises(ValidationError):
        EmotionsPrediction(labels=(), scores={"joy": value})


def test_a_prediction_is_read_back_from_its_own_json():
    prediction = a_prediction()
    assert Prediction.model_validate_json(prediction.model_dump_json()) == prediction
    text = prediction.model_dump_json().replace('"-2":', '"-7":')
    with pytest.raises(ValidationError, match="-7"):
        Prediction.model_validate_json(text)


def test_json_schemas_take_what_the_records_write_and_refuse_the_rest():
    schemas = json_schemas()
    review = {"review_id": "r1", "text": "맛은 비싸", "written_on": "2025-11-01"}
    good = {
        "Restaurant": Restaurant(
            restaurant_id="s1",
            name="맛집",
            category="한식",
            region="서울",
            price_band="over_40k",
        ).model_dump(mode="json"),
        "Review": Review.model_validate(review).model_dump(mode="json"),
        "Label": Label.model_validate(LABEL).model_dump(mode="json"),
        "LabelledReview": LabelledReview.model_validate(
            {"review": review, "label": LABEL}
        ).model_dump(mode="json"),
        "Prediction": a_prediction().model_dump(mode="json"),
        "CategorySummary": CategorySummary.model_validate(SUMMARY).model_dump(mode="json"),
        "Strengths": Strengths.model_validate(STRENGTHS).model_dump(mode="json"),
    }
    assert set(schemas) == set(good)
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        assert list(validator.iter_errors(good[name])) == []
        assert list(validator.iter_errors(good[name] | {"extra": 1})) != []
        assert contract.CONTRACT_VERSION in schema["$comment"]


@pytest.mark.parametrize(
    "bad",
    [
        {"sentiment": "good"},
        {"intensity": 3},
        {"emotions": ["boredom"]},
        {"aspects": {"parking": "negative"}},
        {"aspects": {"food": "absent"}},
    ],
)
def test_the_labels_json_schema_holds_the_closed_sets(bad):
    validator = jsonschema.Draft202012Validator(json_schemas()["Label"])
    assert list(validator.iter_errors(LABEL)) == []
    assert [error.path[0] for error in validator.iter_errors(LABEL | bad)] == list(bad)


@pytest.mark.parametrize(
    ("record", "good", "field", "longest"),
    [
        (Citation, CITATION, "span", MAX_SPAN_CHARACTERS),
        (Bullet, BULLET, "text", MAX_BULLET_CHARACTERS),
        (AspectSummary, ASPECT_SUMMARY, "sentence", MAX_SENTENCE_CHARACTERS),
        (CategorySummary, SUMMARY, "overall", MAX_OVERALL_CHARACTERS),
        (Strength, STRENGTH, "claim", MAX_CLAIM_CHARACTERS),
    ],
)
def test_words_of_a_summary_have_a_length(record, good, field, longest):
    assert getattr(record.model_validate(good | {field: "가" * longest}), field)
    for text in ("", "가" * (longest + 1)):
        with pytest.raises(ValidationError) as refused:
            record.model_validate(good | {field: text})
        assert refused.value.errors()[0]["loc"] == (field,)


@pytest.mark.parametrize(
    ("record", "good", "field", "item", "most"),
    [
        (Bullet, BULLET, "evidence", CITATION, MAX_CITATIONS),
        (AspectSummary, ASPECT_SUMMARY, "bullets", BULLET, MAX_BULLETS),
        (Strength, STRENGTH, "evidence", CITATION, MAX_CITATIONS),
        (Strengths, STRENGTHS, "representative", STRENGTH, MAX_REPRESENTATIVE),
        (Strengths, STRENGTHS, "distinct", STRENGTH, MAX_DISTINCT),
    ],
)
def test_lists_of_a_summary_have_an_end(record, good, field, item, most):
    assert len(getattr(record.model_validate(good | {field: [item] * most}), field)) == most
    with pytest.raises(ValidationError, match=field):
        record.model_validate(good | {field: [item] * (most + 1)})


@pytest.mark.parametrize(("record", "good"), [(Bullet, BULLET), (Strength, STRENGTH)])
def test_what_is_claimed_rests_on_a_citation(record, good):
    with pytest.raises(ValidationError, match="evidence"):
        record.model_validate(good | {"evidence": []})


@pytest.mark.parametrize("polarities", [["positive"], ["negative", "positive"], ["neutral"]])
def test_the_polarity_of_a_summary_follows_from_its_bullets(polarities):
    bullets = [BULLET | {"polarity": polarity} for polarity in polarities]
    expected = aspect_polarity(set(polarities))
    for polarity in get_args(contract.AspectPolarity):
        values = ASPECT_SUMMARY | {"polarity": polarity, "bullets": bullets}
        if polarity == expected:
            assert AspectSummary.model_validate(values).polarity == polarity
        else:
            with pytest.raises(ValidationError, match=f"polarity is '{polarity}'.*'{expected}'"):
                AspectSummary.model_validate(values)


def test_a_summary_without_bullets_keeps_its_polarity():
    values = ASPECT_SUMMARY | {"polarity": "mixed", "bullets": []}
    assert AspectSummary.model_validate(values).polarity == "mixed"


def test_aspects_of_a_summary_stand_in_the_taxonomys_order():
    others = {"price": ASPECT_SUMMARY, "service": ASPECT_SUMMARY, "food": ASPECT_SUMMARY}
    summary = CategorySummary.model_validate(SUMMARY | {"aspects": others})
    assert list(summary.aspects) == ["food", "service", "price"]
    assert CategorySummary.model_validate_json(summary.model_dump_json()) == summary
    with pytest.raises(ValidationError, match="parking"):
        CategorySummary.model_validate(SUMMARY | {"aspects": {"parking": ASPECT_SUMMARY}})


def test_a_restaurants_summary_is_read_back_from_its_own_json():
    values = {"restaurant_id": "s1", "summary": SUMMARY, "strengths": STRENGTHS}
    written = RestaurantSummary.model_validate(values)
    assert RestaurantSummary.model_validate_json(written.model_dump_json()) == written
    assert written.strengths.representative[0].evidence[0].span == "맛은"
    with pytest.raises(ValidationError, match="Extra inputs"):
        RestaurantSummary.model_validate(values | {"stars": 5})


@pytest.mark.parametrize(
    "bad",
    [
        SUMMARY | {"overall": ""},
        SUMMARY | {"aspects": {"parking": ASPECT_SUMMARY}},
        SUMMARY | {"aspects": {"food": ASPECT_SUMMARY | {"bullets": [BULLET | {"evidence": []}]}}},
        SUMMARY | {"aspects": {"food": ASPECT_SUMMARY | {"bullets": [BULLET] * 6}}},
    ],
)
def test_the_summarys_json_schema_holds_the_limits(bad):
    validator = jsonschema.Draft202012Validator(json_schemas()["CategorySummary"])
    assert validator.is_valid(SUMMARY)
    assert not validator.is_valid(bad)


def test_versions_of_the_same_major_are_read():
    check_contract_version(contract.CONTRACT_VERSION, where="here")
    check_contract_version("1.7", where="here")


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "", "one"])
def test_another_major_version_is_refused(version):
    with pytest.raises(ContractError, match=r"labels\.jsonl") as refused:
        check_contract_version(version, where="labels.jsonl")
    assert repr(version) in str(refused.value)
