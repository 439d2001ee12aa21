"""Written summaries of restaurants: read, held against the reviews they cite, or quarantined.

Comes in: a JSON list or JSON lines of ``RestaurantSummary`` (data/contract.py), and the labelled
reviews. Goes out: the summaries whose every citation is true, and the rest with reasons. Evidence
is true when the review exists and is the restaurant's, the span is verbatim in its text, and the
review's label speaks of the aspect with the polarity it is cited for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from data.contract import Aspect, Citation, LabelledReview, Polarity, RestaurantSummary
from data.errors import SourceError
from data.quarantine import QuarantinedRow, RowError, as_json, row_error, shown

LEAST_REPRESENTATIVE_SUPPORT: Final = 2
"""Distinct reviews behind a representative strength, where a restaurant has fewer than 20."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass
class Summaries:
    """What a file of summaries held; rows in = accepted + quarantined.

    Attributes:
        accepted: by restaurant id, in the file's order.
        rows: the row that each accepted one stands in, from 0.
    """

    accepted: dict[str, RestaurantSummary] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    quarantined: list[QuarantinedRow] = field(default_factory=list)


@dataclass(frozen=True)
class _Claim:
    """Words of a summary that rest on citations.

    Attributes:
        where: its place in the summary.
        least_reviews: how many different reviews it must cite.
    """

    where: str
    aspect: Aspect
    polarity: Polarity
    evidence: tuple[Citation, ...]
    least_reviews: int = 1


def read_summaries(path: Path, reviews: Mapping[str, LabelledReview]) -> Summaries:
    """Read a file of summaries and verify each against the labelled reviews.

    Args:
        path: JSON list or JSON lines.
        reviews: by review id; a summary that cites another review is quarantined.

    Raises:
        SourceError: the file is missing or holds nothing, or is neither a JSON list nor JSON lines.
    """
    found = Summaries()
    for row, value in enumerate(_values(path)):
        try:
            summary = _summary(value)
            _refuse_second(summary, found)
            verify_summary(summary, reviews)
        except RowError as error:
            source = None if isinstance(value, RowError) else as_json(value)
            found.quarantined.append(quarantined_summary(row, error, source))
        else:
            found.accepted[summary.restaurant_id] = summary
            found.rows[summary.restaurant_id] = row
    return found


def quarantined_summary(row: int, error: RowError, source: Any) -> QuarantinedRow:
    """The row of a summary that was not accepted; ``source`` is the summary as JSON."""
    return QuarantinedRow(
        row=row,
        review_id=None,
        reason=error.reason,
        detail=str(error),
        step="targets",
        source=source,
    )


def verify_summary(summary: RestaurantSummary, reviews: Mapping[str, LabelledReview]) -> None:
    """Hold every citation of a summary against the reviews.

    Raises:
        RowError: the first thing that is not true, by its place in the summary: the restaurant has
            no reviews, none speaks of the aspect, or a citation is false.
    """
    name = summary.restaurant_id
    mine = [row for row in reviews.values() if row.review.restaurant_id == name]
    if not mine:
        raise RowError(
            "bad_restaurant",
            f"restaurant {name!r} has no reviews here; correct the id, or leave the row out",
        )
    spoken_of = {aspect for row in mine for aspect in row.label.aspects or ()}
    for aspect in summary.summary.aspects:
        if aspect not in spoken_of:
            raise RowError(
                "label_contradiction",
                f"aspects.{aspect} is summarised, no review of {name!r} is labelled with it; "
                "leave it out, or label it",
            )
    for claim in _claims(summary):
        for citation in claim.evidence:
            verify_citation(
                citation, claim.aspect, claim.polarity, name, reviews, where=claim.where
            )
        cited = {citation.review_id for citation in claim.evidence}
        if len(cited) < claim.least_reviews:
            raise RowError(
                "too_little_support",
                f"{claim.where} cites only {sorted(cited)!r}; it needs {claim.least_reviews} "
                "different reviews: cite others, or leave the claim out",
            )


def verify_citation(
    citation: Citation,
    aspect: Aspect,
    polarity: Polarity,
    restaurant_id: str,
    reviews: Mapping[str, LabelledReview],
    *,
    where: str,
) -> None:
    """Hold one citation against the reviews.

    Raises:
        RowError: the review does not exist here, the span is not verbatim, or the review's label
            does not speak of the aspect so.
    """
    cited = reviews.get(citation.review_id)
    if cited is None or cited.review.restaurant_id != restaurant_id:
        raise RowError(
            "unknown_review",
            f"{where} cites review {citation.review_id!r}, which {restaurant_id!r} has not "
            "among these reviews; cite one of its own",
        )
    if citation.span not in cited.review.text:
        raise RowError(
            "span_not_in_text",
            f"{where} cites {shown(citation.span)}, which is not verbatim in review "
            f"{citation.review_id!r}; copy it letter by letter",
        )
    labelled = (cited.label.aspects or {}).get(aspect)
    # Neutral words give way in a review's label, so its evidence is asked too.
    shown_so = {each.polarity for each in cited.label.evidence if each.aspect == aspect}
    if labelled not in (polarity, "mixed") and polarity not in shown_so:
        raise RowError(
            "label_contradiction",
            f"{where} cites review {citation.review_id!r} for {aspect}:{polarity}, its label says "
            f"{labelled!r}; cite another review, or correct the label",
        )


def _claims(summary: RestaurantSummary) -> Iterator[_Claim]:
    for aspect, part in summary.summary.aspects.items():
        for index, bullet in enumerate(part.bullets):
            where = f"aspects.{aspect}.bullets[{index}]"
            yield _Claim(where, aspect, bullet.polarity, bullet.evidence)
    kinds = (
        ("representative", summary.strengths.representative, LEAST_REPRESENTATIVE_SUPPORT),
        ("distinct", summary.strengths.distinct, 1),
    )
    for kind, strengths, least in kinds:
        for index, strength in enumerate(strengths):
            where = f"strengths.{kind}[{index}]"
            yield _Claim(where, strength.aspect, "positive", strength.evidence, least)


def _summary(value: Any) -> RestaurantSummary:
    if isinstance(value, RowError):
        raise value
    if not isinstance(value, dict):
        raise RowError(
            "wrong_type", f"the row is {shown(value)}, expected an object; write a summary a row"
        )
    try:
        return RestaurantSummary.model_validate(value)
    except ValidationError as error:
        refused = row_error(error)
        if error.errors()[0]["type"] == "value_error":  # of several fields together
            refused.reason = "label_contradiction"
        raise refused from error


def _refuse_second(summary: RestaurantSummary, found: Summaries) -> None:
    first = found.rows.get(summary.restaurant_id)
    if first is not None:
        raise RowError(
            "duplicate_restaurant",
            f"restaurant {summary.restaurant_id!r} is summarised in row {first} too, and the first "
            "stands; leave this row out",
        )


def _values(path: Path) -> list[Any]:
    """The file's values; a line that is no JSON comes as the error to quarantine it with."""
    try:
        content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        raise SourceError(
            f"summaries {str(path)!r} cannot be read: {error.strerror}; name a JSON or JSONL file"
        ) from error
    if content.lstrip().startswith(b"["):
        try:
            values: list[Any] = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise SourceError(
                f"summaries {str(path)!r} is not a JSON list: {error}; correct it"
            ) from error
    else:
        lines = enumerate(content.splitlines(), start=1)
        values = [_line(number, line) for number, line in lines if line.strip()]
    if not values:
        raise SourceError(f"{str(path)!r} holds no summaries; write some, or name no file")
    return values


def _line(number: int, line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return RowError("bad_row", f"line {number} is not JSON: {error}; correct it")
