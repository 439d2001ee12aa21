"""What reviews say, in their own words: what stands in where a model's words cannot be used.

Nothing is written here. Of the clauses that speak of an aspect, the most typical are shown as they
were typed, each with the review it is from.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from data.contract import (
    KOREAN,
    MAX_BULLET_CHARACTERS,
    MAX_OVERALL_CHARACTERS,
    MAX_SENTENCE_CHARACTERS,
    Aspect,
    AspectSummary,
    Bullet,
    Citation,
    Polarity,
    aspect_polarity,
)
from data.prompts import Point

BULLETS: Final = 3


def most_typical(points: Sequence[Point]) -> list[Point]:
    """The points, those first that share most of their letter pairs with the others."""
    pairs = [_pairs(point.span) for point in points]

    def likeness(index: int) -> float:
        mine = pairs[index]
        return sum(2 * len(mine & other) / max(len(mine) + len(other), 1) for other in pairs)

    order = sorted(range(len(points)), key=lambda index: -likeness(index))
    return [points[index] for index in order]


def extractive_aspect(points: Sequence[Point]) -> AspectSummary:
    """An aspect's summary of verbatim clauses: one of each polarity, the most frequent first.

    Args:
        points: at least one, all of one aspect.
    """
    groups: dict[Polarity, list[Point]] = {}
    for point in points:
        groups.setdefault(point.polarity, []).append(point)
    ranked = [most_typical(groups[each]) for each in sorted(groups, key=lambda p: -len(groups[p]))]
    first = [group[0] for group in ranked]
    others = [point for group in ranked for point in group[1:]]
    bullets: dict[str, Point] = {}
    for point in [*first, *others]:
        if len(bullets) < BULLETS:
            bullets.setdefault(shortened(point.span, MAX_BULLET_CHARACTERS), point)
    return AspectSummary(
        polarity=aspect_polarity({point.polarity for point in bullets.values()}),
        sentence=shortened(" / ".join(bullets), MAX_SENTENCE_CHARACTERS),
        bullets=tuple(
            Bullet(
                text=text,
                polarity=point.polarity,
                evidence=(Citation(review_id=point.review_id, span=point.span),),
            )
            for text, point in bullets.items()
        ),
    )


def extractive_overall(aspects: Mapping[Aspect, AspectSummary]) -> str:
    """The aspects' sentences, as many whole ones as an overall summary may hold, at least one."""
    overall = ""
    for aspect, summary in aspects.items():
        line = f"{KOREAN[aspect]}: {summary.sentence}"
        longer = f"{overall} {line}".strip()
        if overall and len(longer) > MAX_OVERALL_CHARACTERS:
            break
        overall = longer
    return overall


def shortened(text: str, limit: int) -> str:
    """The beginning of a text, cut at a space where there is one."""
    if len(text) <= limit:
        return text
    space = text.rfind(" ", 1, limit + 1)
    return text[: limit if space < 0 else space].rstrip()


def _pairs(text: str) -> set[str]:
    letters = "".join(text.split())
    return {letters[index : index + 2] for index in range(len(letters) - 1)} or {letters}
