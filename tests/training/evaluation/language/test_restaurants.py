from dataclasses import replace

import pytest

from data.contract import AspectSummary, Bullet, Citation, Strength, Strengths
from training.evaluation.language.gold import Gold
from training.evaluation.language.restaurants import (
    GoldRestaurant,
    Summarised,
    restaurant_parts,
    routing_parts,
    sorted_clauses,
)


@pytest.fixture
def restaurant(gold: Gold) -> GoldRestaurant:
    return gold.restaurants[0]


def right(restaurant: GoldRestaurant) -> Summarised:
    return Summarised(
        restaurant.written.summary,
        restaurant.written.strengths,
        {row.review.review_id: row.label for row in restaurant.rows},
    )


def cited(restaurant: GoldRestaurant, *citations: Citation) -> Strengths:
    strength = Strength(aspect="food", claim="국물이 진한 집", evidence=citations)
    return Strengths(representative=(strength,), distinct=())


def test_an_aspect_too_few_costs_its_texts_and_one_too_many_is_told(
    restaurant: GoldRestaurant,
) -> None:
    written = restaurant.written.summary
    there = dict(written.aspects)
    lost = next(iter(there))
    missing = {name: part for name, part in there.items() if name != lost}
    parts = restaurant_parts(
        restaurant,
        replace(right(restaurant), summary=written.model_copy(update={"aspects": missing})),
    )
    count = len(there)
    assert parts["summary_aspect"] == [count - 1, 0, 1]
    assert parts["summary_sentence_chrf"] == [pytest.approx(count - 1), count]
    assert parts[f"summary_bullets_chrf:{lost}"] == [0.0, 1.0]
    assert parts["summary_polarity"] == [count - 1, count]
    assert parts["summary_hallucinated"] == [0, count - 1]


def test_an_aspect_that_no_review_speaks_of_is_hallucinated(restaurant: GoldRestaurant) -> None:
    spoken = {aspect for row in restaurant.rows for aspect in row.label.aspects or {}}
    kept = tuple(row for row in restaurant.rows if "food" not in (row.label.aspects or {}))
    assert "food" in spoken
    assert kept
    silent = replace(restaurant, rows=kept)
    assert restaurant_parts(silent, right(restaurant))["summary_hallucinated"][0] >= 1


def test_a_citation_is_true_only_verbatim_in_a_review_of_this_restaurant(
    restaurant: GoldRestaurant, gold: Gold
) -> None:
    row = next(r for r in restaurant.rows if (r.label.aspects or {}).get("food") == "positive")
    span = next(each.text for each in row.label.evidence if each.aspect == "food")
    mine, other = row.review.review_id, gold.restaurants[1].rows[0].review
    for citation, verbatim in (
        (Citation(review_id=mine, span=span), 1),
        (Citation(review_id=mine, span=span[::-1]), 0),
        (Citation(review_id=other.review_id, span=other.text[:5]), 0),
        (Citation(review_id="nobody", span=span), 0),
    ):
        parts = restaurant_parts(restaurant, Summarised(strengths=cited(restaurant, citation)))
        assert parts["summary_evidence_verbatim"] == [verbatim, 1]
        assert parts["summary_evidence_supported"] == [verbatim, 1]


def test_a_verbatim_citation_of_the_wrong_polarity_is_not_borne_out(
    restaurant: GoldRestaurant,
) -> None:
    row = next(
        r
        for r in restaurant.rows
        for each in r.label.evidence
        if (r.label.aspects or {})[each.aspect] == "negative"
    )
    (found, *_) = [
        e for e in row.label.evidence if (row.label.aspects or {})[e.aspect] == "negative"
    ]
    citation = Citation(review_id=row.review.review_id, span=found.text)
    praise = Bullet(text="칭찬이 많다", polarity="positive", evidence=(citation,))
    part = AspectSummary(polarity="positive", sentence="칭찬이 많다", bullets=(praise,))
    summary = restaurant.written.summary.model_copy(update={"aspects": {found.aspect: part}})
    parts = restaurant_parts(restaurant, Summarised(summary))
    assert parts["summary_evidence_verbatim"] == [1, 1]
    assert parts["summary_evidence_supported"] == [0, 1]


def test_reviews_that_were_not_sorted_miss_their_aspects(restaurant: GoldRestaurant) -> None:
    every = routing_parts(restaurant, right(restaurant))
    assert every["summary_clause"][0] == every["summary_clause"][1] > 0
    assert every["summary_category"][1:] == [0, 0]
    first = restaurant.rows[0].review.review_id
    one = routing_parts(restaurant, Summarised(routed={first: restaurant.rows[0].label}))
    assert one["summary_category"][0] == len(restaurant.rows[0].label.aspects or {})
    assert sum(one["summary_category"]) == sum(every["summary_category"])


def test_a_review_without_labelled_aspects_is_judged_by_nobody(
    restaurant: GoldRestaurant,
) -> None:
    row = restaurant.rows[0]
    unlabelled = row.model_copy(
        update={"label": row.label.model_copy(update={"aspects": None, "evidence": ()})}
    )
    parts = routing_parts(replace(restaurant, rows=(unlabelled,)), right(restaurant))
    assert parts == {}


def test_evidence_across_two_clauses_gives_both_the_aspect(restaurant: GoldRestaurant) -> None:
    row = next(r for r in restaurant.rows if len(r.label.evidence) == 2)
    text = row.review.text
    whole = row.label.evidence[0].model_copy(update={"start": 0, "end": len(text)})
    label = row.label.model_copy(update={"evidence": (whole,)})
    assert sorted_clauses(label, text) == {0: {whole.aspect}, 1: {whole.aspect}}
    assert sorted_clauses(None, text) == {}


def test_a_degraded_answer_is_not_an_answer_in_full(restaurant: GoldRestaurant) -> None:
    for status, answered in (("ok", 1.0), ("degraded", 0.0), ("insufficient_data", 0.0)):
        parts = restaurant_parts(restaurant, replace(right(restaurant), status=status))
        assert parts["summary_answered"] == [answered, 1.0]
