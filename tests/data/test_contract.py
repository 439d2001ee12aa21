"""The contract of reviews, labels and predictions: what is a record, and what is refused."""

import itertools
import runpy
from pathlib import Path
from types import SimpleNamespace
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
    MAX_REVIEW_CHARACTERS,
    PHENOMENA,
    POLARITIES,
    SENTIMENTS,
    CategorySummary,
    EmotionsPrediction,
    Evidence,
    Label,
    LabelledReview,
    Prediction,
    Restaurant,
    Review,
    Strengths,
    aspect_polarity,
    check_contract_version,
    json_schemas,
)
from data.errors import ContractError

EXAMPLES = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("contract_examples.py"))))
LABEL = EXAMPLES.LABEL


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
    prediction = EXAMPLES.a_prediction()
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
        "Prediction": EXAMPLES.a_prediction().model_dump(mode="json"),
        "CategorySummary": CategorySummary.model_validate(EXAMPLES.SUMMARY).model_dump(mode="json"),
        "Strengths": Strengths.model_validate(EXAMPLES.STRENGTHS).model_dump(mode="json"),
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


def test_versions_of_the_same_major_are_read():
    check_contract_version(contract.CONTRACT_VERSION, where="here")
    check_contract_version("1.7", where="here")


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", "", "one"])
def test_another_major_version_is_refused(version):
    with pytest.raises(ContractError, match=r"labels\.jsonl") as refused:
        check_contract_version(version, where="labels.jsonl")
    assert repr(version) in str(refused.value)
