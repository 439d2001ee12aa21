"""Made-up restaurants with extractive summaries, to warm a language model up to the answers' forms.

Reviews of data/sources/synthetic.py are dealt out to restaurants; a summary repeats what they say,
clause by clause, in fixed words. It teaches where evidence goes, not how people summarise, and
never stands among the data that anything is measured on.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random
from typing import Final

from data.contract import (
    ASPECTS,
    KOREAN,
    MAX_BULLETS,
    MAX_CITATIONS,
    POLARITIES,
    Aspect,
    AspectSummary,
    Bullet,
    CategorySummary,
    Citation,
    LabelledReview,
    RestaurantSummary,
    Strength,
    Strengths,
    aspect_polarity,
)
from data.prompts import Point
from data.sources.synthetic import generate
from data.targets import points_of

FEWEST_REVIEWS: Final = 3
MOST_REVIEWS: Final = 14
_LONGEST_POINT: Final = 60
_LONGEST_CLAIM: Final = 28
_SENTENCES: Final = {
    "positive": "{aspect} 이야기는 칭찬이다.",
    "negative": "{aspect} 쪽은 불만이다.",
    "mixed": "{aspect} 평은 엇갈린다.",
    "neutral": "{aspect} 관련 사실이 언급된다.",
}


def synthetic_restaurants(
    count: int, *, seed: int
) -> Iterator[tuple[RestaurantSummary, list[LabelledReview]]]:
    """Restaurants with their reviews and summaries; equal seeds give equal ones.

    Args:
        count: of restaurants.
        seed: of the reviews, and of how many each restaurant gets.
    """
    rng = Random(seed)  # noqa: S311  # repeatable, not secret
    reviews = generate(count * MOST_REVIEWS, seed=seed)
    for number in range(count):
        restaurant_id = f"synthetic-{seed}-restaurant-{number}"
        mine = [
            LabelledReview(
                review=row.review.model_copy(update={"restaurant_id": restaurant_id}),
                label=row.label,
            )
            for row in islice(reviews, rng.randint(FEWEST_REVIEWS, MOST_REVIEWS))
        ]
        points = points_of(mine)
        if points:
            yield _summarised(restaurant_id, points), mine


def _summarised(restaurant_id: str, points: Sequence[Point]) -> RestaurantSummary:
    aspects: dict[Aspect, AspectSummary] = {}
    for aspect in ASPECTS:
        spoken = [point for point in points if point.aspect == aspect]
        bullets = [
            _bullet(said)
            for polarity in POLARITIES
            if (said := [point for point in spoken if point.polarity == polarity])
        ]
        if bullets:
            state = aspect_polarity({bullet.polarity for bullet in bullets})
            aspects[aspect] = AspectSummary(
                polarity=state,
                sentence=_SENTENCES[state].format(aspect=KOREAN[aspect]),
                bullets=tuple(bullets[:MAX_BULLETS]),
            )
    overall = " ".join(part.sentence for part in aspects.values())
    return RestaurantSummary(
        restaurant_id=restaurant_id,
        summary=CategorySummary(overall=overall, aspects=aspects),
        strengths=Strengths(representative=_strengths(points), distinct=()),
    )


def _bullet(said: Sequence[Point]) -> Bullet:
    text = said[0].span[:_LONGEST_POINT].strip()
    return Bullet(text=text, polarity=said[0].polarity, evidence=_citations(said))


def _citations(said: Sequence[Point]) -> tuple[Citation, ...]:
    """One clause of each review, the first it says."""
    firsts = {point.review_id: point for point in reversed(said)}
    cited = [point for point in said if point is firsts[point.review_id]][:MAX_CITATIONS]
    return tuple(Citation(review_id=point.review_id, span=point.span) for point in cited)


def _strengths(points: Sequence[Point]) -> tuple[Strength, ...]:
    praised = [
        [point for point in points if point.aspect == aspect and point.polarity == "positive"]
        for aspect in ASPECTS
    ]
    supported = [said for said in praised if len({point.review_id for point in said}) > 1]
    ranked = sorted(supported, key=len, reverse=True)
    return tuple(
        Strength(
            aspect=said[0].aspect,
            claim=said[0].span[:_LONGEST_CLAIM].strip(),
            evidence=_citations(said),
        )
        for said in ranked[:4]
    )
