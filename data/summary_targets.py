"""A restaurant's written summary to examples: each aspect, the overall summary, the strengths.

The prompts show the labelled clauses of its reviews, so a citation is taught as the numbers of the
lines that it stands in. One that stands in none is refused: its line would be another's words.
"""

from collections.abc import Iterator, Mapping, Sequence

from data.answers import (
    AspectAnswer,
    BulletAnswer,
    OverallAnswer,
    StrengthAnswer,
    StrengthsAnswer,
    dump_answer,
)
from data.contract import (
    MAX_CITATIONS,
    Aspect,
    AspectSummary,
    Citation,
    LabelledReview,
    Polarity,
    RestaurantSummary,
    Strength,
)
from data.examples import Example, points_of
from data.prompts import Point, aspect_prompt, overall_prompt, strengths_prompt
from data.quarantine import RowError, shown


def summary_examples(
    summary: RestaurantSummary, reviews: Sequence[LabelledReview]
) -> list[Example]:
    """The examples of one restaurant.

    Args:
        summary: verified against these reviews (data/summaries.py).
        reviews: all of the restaurant's.

    Raises:
        RowError: no aspect is summarised, or one without a bullet; a citation is of no labelled
            clause; or a claim cites more lines than an answer holds.
    """
    about, parts = summary.restaurant_id, summary.summary.aspects
    if not parts:
        raise RowError(
            "too_little_support",
            f"the summary of {about!r} is of no aspect; write one, or leave the row out",
        )
    points = points_of(reviews)
    texts = {row.review.review_id: row.review.text for row in reviews}
    examples = [_aspect_example(about, *each, points, texts) for each in parts.items()]
    examples.append(overall_example(summary))
    praised = [point for point in points if point.polarity == "positive"]
    if praised:
        examples.append(_strengths_example(summary, praised, texts))
    return examples


def overall_example(summary: RestaurantSummary) -> Example:
    """The restaurant's aspects, and what is said of all of them."""
    parts = summary.summary.aspects
    sentences = [(aspect, part.polarity, part.sentence) for aspect, part in parts.items()]
    return Example(
        task="overall",
        about=summary.restaurant_id,
        numbered=0,
        messages=overall_prompt(sentences),
        answer=dump_answer(OverallAnswer(overall=summary.summary.overall)),
    )


def _aspect_example(
    about: str,
    aspect: Aspect,
    part: AspectSummary,
    points: Sequence[Point],
    texts: Mapping[str, str],
) -> Example:
    if not part.bullets:
        raise RowError(
            "too_little_support",
            f"aspects.{aspect} of {about!r} has no bullet; write one, or leave the aspect out",
        )
    mine = [point for point in points if point.aspect == aspect]
    answer = AspectAnswer(
        bullets=[
            BulletAnswer(
                evidence=_references(bullet.evidence, mine, aspect, bullet.polarity, texts),
                polarity=bullet.polarity,
                text=bullet.text,
            )
            for bullet in part.bullets
        ],
        sentence=part.sentence,
    )
    return Example(
        task="aspect",
        about=about,
        aspect=aspect,
        numbered=len(mine),
        messages=aspect_prompt(aspect, mine),
        answer=dump_answer(answer),
    )


def _strengths_example(
    summary: RestaurantSummary, praised: Sequence[Point], texts: Mapping[str, str]
) -> Example:
    answer = StrengthsAnswer(
        strengths=[
            StrengthAnswer(
                aspect=each.aspect,
                evidence=_references(each.evidence, praised, each.aspect, "positive", texts),
                claim=each.claim,
            )
            for each in _strengths(summary)
        ]
    )
    return Example(
        task="strengths",
        about=summary.restaurant_id,
        numbered=len(praised),
        messages=strengths_prompt(praised),
        answer=dump_answer(answer),
    )


def _strengths(summary: RestaurantSummary) -> list[Strength]:
    """Both kinds, most reviews first: which is distinct a comparison says, not this prompt."""
    both = [*summary.strengths.representative, *summary.strengths.distinct]
    return sorted(both, key=lambda each: -len({cited.review_id for cited in each.evidence}))


def _references(
    citations: Sequence[Citation],
    points: Sequence[Point],
    aspect: Aspect,
    polarity: Polarity,
    texts: Mapping[str, str],
) -> list[str]:
    """The numbers of the lines that citations stand in, each once, in order."""
    numbers: set[int] = set()
    for citation in citations:
        text = texts[citation.review_id]
        fit = {
            number: point.span
            for number, point in enumerate(points, start=1)
            if (point.review_id, point.aspect, point.polarity)
            == (citation.review_id, aspect, polarity)
        }
        whole = {number for number, span in fit.items() if span == citation.span}
        held = whole or {each for each, span in fit.items() if _touch(text, citation.span, span)}
        if not held:
            raise RowError(
                "label_contradiction",
                f"review {citation.review_id!r} is cited for {aspect}:{polarity} with "
                f"{shown(citation.span)}, where its label marks nothing so; cite what is "
                "labelled, or label it",
            )
        numbers |= held
    if len(numbers) > MAX_CITATIONS:
        raise RowError(
            "target_too_long",
            f"{len(citations)!r} citations of {aspect}:{polarity}, the first "
            f"{shown(citations[0].span)}, stand in {len(numbers)!r} clauses, an answer cites "
            f"{MAX_CITATIONS}; cite less, or shorter spans",
        )
    return [f"#{number}" for number in sorted(numbers)]


def _touch(text: str, one: str, other: str) -> bool:
    """Whether two parts of a text share a letter, wherever in it they stand."""
    beside = len(other) - 1
    return any(
        other in text[max(0, start - beside) : end + beside] for start, end in _places(text, one)
    )


def _places(text: str, part: str) -> Iterator[tuple[int, int]]:
    start = text.find(part)
    while start >= 0:
        yield start, start + len(part)
        start = text.find(part, start + 1)
