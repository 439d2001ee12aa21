"""Null baselines of whole restaurants: nothing, another restaurant's summary, the first clauses."""

from collections.abc import Sequence
from typing import Final

from data.clauses import split_clauses
from data.contract import (
    ASPECTS,
    MAX_BULLETS,
    Aspect,
    AspectSummary,
    Bullet,
    CategorySummary,
    Citation,
    Strength,
    Strengths,
    aspect_polarity,
)
from data.prompts import Point
from training.evaluation.language.gold import Gold
from training.evaluation.language.restaurants import GoldRestaurant, Summarised

LEAD_SENTENCES: Final = 2
"""Of an overall summary that only copies."""


def nothing(gold: Gold) -> list[Summarised]:
    """No word of any restaurant."""
    return [Summarised() for _ in gold.restaurants]


def other_restaurants(gold: Gold) -> list[Summarised]:
    """Of each restaurant, what is true of the next one."""
    count = len(gold.restaurants)
    return [
        _in_place_of(restaurant, gold.restaurants[(number + 1) % count])
        for number, restaurant in enumerate(gold.restaurants)
    ]


def _in_place_of(restaurant: GoldRestaurant, other: GoldRestaurant) -> Summarised:
    """Another restaurant's summary; the reviews are sorted as its reviews are, one by one."""
    routed = {}
    for number, row in enumerate(restaurant.rows):
        theirs = other.rows[number % len(other.rows)]
        clauses = split_clauses(row.review.text)
        evidence = tuple(
            each.model_copy(update={"start": clause.start, "end": clause.end})
            for place, each in enumerate(theirs.label.evidence)
            for clause in [clauses[place % len(clauses)]]
        )
        routed[row.review.review_id] = theirs.label.model_copy(update={"evidence": evidence})
    return Summarised(other.written.summary, other.written.strengths, routed)


def lead_restaurants(gold: Gold) -> list[Summarised]:
    """Of each restaurant, the first clauses of each aspect."""
    return [_lead_restaurant(gold.points[each.written.restaurant_id]) for each in gold.restaurants]


def _lead_restaurant(points: Sequence[Point]) -> Summarised:
    """The first clauses of each aspect: who sorts as the gold does, and copies."""
    aspects: dict[Aspect, AspectSummary] = {}
    for aspect in ASPECTS:
        mine = [point for point in points if point.aspect == aspect][:MAX_BULLETS]
        if mine:
            bullets = tuple(
                Bullet(text=each.span[:80], polarity=each.polarity, evidence=_cited([each]))
                for each in mine
            )
            polarity = aspect_polarity({each.polarity for each in mine})
            aspects[aspect] = AspectSummary(
                polarity=polarity, sentence=mine[0].span[:200], bullets=bullets
            )
    praised = [point for point in points if point.polarity == "positive"][:4]
    strengths = tuple(
        Strength(aspect=each.aspect, claim=each.span[:40], evidence=_cited([each]))
        for each in praised
    )
    overall = " ".join(part.sentence for part in list(aspects.values())[:LEAD_SENTENCES])
    return Summarised(
        CategorySummary(overall=overall[:400], aspects=aspects),
        Strengths(representative=strengths, distinct=()),
    )


def _cited(points: Sequence[Point]) -> tuple[Citation, ...]:
    return tuple(Citation(review_id=each.review_id, span=each.span) for each in points)
