"""A whole restaurant, from its reviews to its summary and strengths, against the written ones.

What is judged here went through every step that serving takes: each review was sorted by aspect
first, and only what was sorted there could be summarised. Parts are as in counting.py, of one
restaurant; their names begin with ``summary_``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from data.clauses import overlapping, split_clauses
from data.contract import (
    ASPECTS,
    Aspect,
    AspectSummary,
    CategorySummary,
    Citation,
    Label,
    LabelledReview,
    Polarity,
    RestaurantSummary,
    Review,
    Strength,
    Strengths,
)
from training.evaluation.language.counting import (
    Assignments,
    category_parts,
    claims_parts,
    overlap,
    text_parts,
    texts_parts,
)
from training.evaluation.language.form import Parts, as_measures, drift_of
from training.evaluation.language.scores import SCORES, Score, matched

PREFIX: Final = "summary"


class RestaurantAnswer(Protocol):
    """What serving says of a restaurant (serving/summaries.py)."""

    @property
    def summary(self) -> CategorySummary | None:
        """None where nothing could be summarised."""

    @property
    def strengths(self) -> Strengths | None:
        """None where none were asked for."""

    @property
    def routed(self) -> Mapping[str, Label]:
        """By review id, what each review was found to say."""

    @property
    def status(self) -> str:
        """ok, or why the answer is less."""

    @property
    def reasons(self) -> Sequence[str]:
        """Sentences, where the status is not ok."""


@dataclass(frozen=True)
class Summarised:
    """A restaurant's answer that no model gave: a null baseline's."""

    summary: CategorySummary | None = None
    strengths: Strengths | None = None
    routed: dict[str, Label] = field(default_factory=dict)
    status: str = "ok"
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class GoldRestaurant:
    """A written summary, and the labelled reviews that it rests on, oldest first."""

    written: RestaurantSummary
    rows: tuple[LabelledReview, ...]

    @property
    def reviews(self) -> list[Review]:
        """What a model is shown."""
        return [row.review for row in self.rows]


def restaurant_parts(gold: GoldRestaurant, said: RestaurantAnswer) -> Parts:
    """Everything that is counted of one restaurant."""
    written = gold.written.summary
    found = said.summary
    parts: Parts = {"answered": [float(said.status == "ok" and found is not None), 1.0]}
    parts |= text_parts("overall", written.overall, found.overall if found else "")
    parts |= _aspect_texts(written, found)
    parts |= _aspects_found(gold, found)
    parts |= _strength_parts(gold.written.strengths, said.strengths)
    parts |= evidence_parts(gold, found, said.strengths)
    prompt = "\n".join(row.review.text for row in gold.rows)
    parts |= drift_of("\n".join(_words(found, said.strengths)), prompt)
    shares = [_first(parts[name]) for name in ("overall_chrf", "sentence_chrf", "bullets_chrf")]
    parts["score"] = [sum(shares) / len(shares), 1.0]
    return as_measures(parts, PREFIX) | routing_parts(gold, said)


def routing_parts(gold: GoldRestaurant, said: RestaurantAnswer) -> Parts:
    """How the restaurant's reviews were sorted by aspect on the way to its summary."""
    total: Parts = {}
    for row in gold.rows:
        if row.label.aspects is None:
            continue
        text = row.review.text
        routed = said.routed.get(row.review.review_id)
        parts = category_parts(sorted_clauses(row.label, text), sorted_clauses(routed, text))
        for name, values in parts.items():
            before = total.get(name, [0.0] * len(values))
            total[name] = [a + b for a, b in zip(before, values, strict=True)]
    return as_measures(total, PREFIX)


def sorted_clauses(label: Label | None, text: str) -> Assignments:
    """Which aspects a label's evidence gives each clause of the text."""
    clauses = split_clauses(text)
    found: Assignments = {}
    for each in label.evidence if label else ():
        for index in overlapping(clauses, each.start, each.end):
            found.setdefault(index, set()).add(each.aspect)
    return found


def evidence_parts(
    gold: GoldRestaurant, summary: CategorySummary | None, strengths: Strengths | None
) -> Parts:
    """Citations that are verbatim in a review of this restaurant; and that its label bears out.

    An answer without a citation has none that could be false: its parts are zero of zero.
    """
    rows = {row.review.review_id: row for row in gold.rows}
    verbatim = supported = count = 0
    for aspect, polarity, citation in _citations(summary, strengths):
        count += 1
        row = rows.get(citation.review_id)
        if row is not None and citation.span in row.review.text:
            verbatim += 1
            label = (row.label.aspects or {}).get(aspect)
            supported += label in (polarity, "mixed")
    return {"evidence_verbatim": [verbatim, count], "evidence_supported": [supported, count]}


def _aspect_texts(written: CategorySummary, found: CategorySummary | None) -> Parts:
    """Sentences and bullets, an aspect at a time; one that only one side has scores 0."""
    said = found.aspects if found else {}
    parts: Parts = {}
    for aspect in [name for name in ASPECTS if name in written.aspects or name in said]:
        mine, other = written.aspects.get(aspect), said.get(aspect)
        for name, compare in SCORES.items():
            sentence = bullets = 0.0
            if mine is not None and other is not None:
                sentence = compare(mine.sentence, other.sentence)
                bullets = _bullets(compare, mine, other)
            values = {f"sentence_{name}": sentence, f"bullets_{name}": bullets}
            for measure, value in values.items():
                before = parts.get(measure, [0.0, 0.0])
                parts[measure] = [before[0] + value, before[1] + 1.0]
                if name == "chrf":
                    parts[f"{measure}:{aspect}"] = [value, 1.0]
    return parts


def _bullets(compare: Score, mine: AspectSummary, other: AspectSummary) -> float:
    gold, said = ([bullet.text for bullet in each.bullets] for each in (mine, other))
    return matched(compare, gold, said) if gold else float(not said)


def _aspects_found(gold: GoldRestaurant, found: CategorySummary | None) -> Parts:
    """Aspects against the written summary; and those that no review speaks of."""
    written = gold.written.summary.aspects
    said = found.aspects if found else {}
    spoken_of = {aspect for row in gold.rows for aspect in row.label.aspects or ()}
    agreed = sum(
        said[aspect].polarity == part.polarity for aspect, part in written.items() if aspect in said
    )
    return {
        "aspect": overlap(set(written), set(said)),
        "polarity": [agreed, len(written)],
        "hallucinated": [len(set(said) - spoken_of), len(said)],
    }


def _strength_parts(written: Strengths, found: Strengths | None) -> Parts:
    gold, said = _all(written), _all(found)
    parts = claims_parts(
        *([(each.aspect, _reviews(each)) for each in both] for both in (gold, said))
    )
    if gold:
        parts |= texts_parts("claims", *([each.claim for each in both] for both in (gold, said)))
    return parts


def _all(strengths: Strengths | None) -> list[Strength]:
    return [*strengths.representative, *strengths.distinct] if strengths else []


def _reviews(strength: Strength) -> frozenset[str]:
    return frozenset(citation.review_id for citation in strength.evidence)


def _citations(
    summary: CategorySummary | None, strengths: Strengths | None
) -> Iterator[tuple[Aspect, Polarity, Citation]]:
    for aspect, part in summary.aspects.items() if summary else ():
        for bullet in part.bullets:
            yield from ((aspect, bullet.polarity, citation) for citation in bullet.evidence)
    for strength in _all(strengths):
        yield from ((strength.aspect, "positive", citation) for citation in strength.evidence)


def _words(summary: CategorySummary | None, strengths: Strengths | None) -> Iterator[str]:
    if summary:
        yield summary.overall
        for part in summary.aspects.values():
            yield part.sentence
            yield from (bullet.text for bullet in part.bullets)
    yield from (strength.claim for strength in _all(strengths))


def _first(parts: Sequence[float]) -> float:
    return parts[0] / parts[1]
