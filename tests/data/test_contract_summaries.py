"""What the contract says of summaries and strengths: lengths, limits, citations, polarities."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import jsonschema
import pytest
from pydantic import ValidationError

from data import contract
from data.contract import (
    MAX_BULLET_CHARACTERS,
    MAX_BULLETS,
    MAX_CITATIONS,
    MAX_CLAIM_CHARACTERS,
    MAX_DISTINCT,
    MAX_OVERALL_CHARACTERS,
    MAX_REPRESENTATIVE,
    MAX_SENTENCE_CHARACTERS,
    MAX_SPAN_CHARACTERS,
    AspectSummary,
    Bullet,
    CategorySummary,
    Citation,
    RestaurantSummary,
    Strength,
    Strengths,
    aspect_polarity,
    json_schemas,
)

EXAMPLES = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("contract_examples.py"))))
CITATION = EXAMPLES.CITATION
BULLET = EXAMPLES.BULLET
ASPECT_SUMMARY = EXAMPLES.ASPECT_SUMMARY
SUMMARY = EXAMPLES.SUMMARY
STRENGTH = EXAMPLES.STRENGTH
STRENGTHS = EXAMPLES.STRENGTHS


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
