"""Made-up restaurants with summaries in fixed words, to warm a language model up to its answers.

Reviews of data/sources/synthetic.py are dealt out to restaurants; a summary groups their clauses
and says of each group, in one sentence of a few, what it is about. It teaches where evidence goes
and what a short answer looks like, not how people summarise, and never stands among the data that
anything is measured on. Fixed words, because a model of a few million weights learns them in a
minute; taught to repeat a clause instead, it wrote one syllable until it was stopped.
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
    MAX_SENTENCE_CHARACTERS,
    POLARITIES,
    Aspect,
    AspectSummary,
    Bullet,
    CategorySummary,
    Citation,
    LabelledReview,
    Polarity,
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
_POINTS: Final[dict[Polarity, str]] = {
    "positive": "{aspect}에 만족했다는 후기",
    "negative": "{aspect}에 실망했다는 후기",
    "neutral": "{aspect}에 관해 알리는 후기",
}
_CLAIM: Final = "{aspect}에 만족한 손님이 여럿인 곳"
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


def quoting(summary: RestaurantSummary) -> RestaurantSummary:
    """The same, but what is said of an aspect is what its reviews said, as long as people's own.

    An overall summary is asked for from such sentences; after fixed ones alone a model does not
    know where it is.
    """
    quoted = {
        aspect: part.model_copy(update={"sentence": _quotes(part.bullets)})
        for aspect, part in summary.summary.aspects.items()
    }
    told = summary.summary.model_copy(update={"aspects": quoted})
    return summary.model_copy(update={"summary": told})


def _quotes(bullets: Sequence[Bullet]) -> str:
    spans = [citation.span for bullet in bullets for citation in bullet.evidence[:2]]
    return ", ".join(spans)[:MAX_SENTENCE_CHARACTERS].strip()


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
    first = said[0]
    text = _POINTS[first.polarity].format(aspect=KOREAN[first.aspect])
    return Bullet(text=text, polarity=first.polarity, evidence=_citations(said))


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
            claim=_CLAIM.format(aspect=KOREAN[said[0].aspect]),
            evidence=_citations(said),
        )
        for said in ranked[:4]
    )
