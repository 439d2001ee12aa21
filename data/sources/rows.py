"""What every source of labels yields: one row at a time, fit or with the reason why not."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pydantic import ValidationError

from data.contract import MAX_REVIEW_CHARACTERS, Label, Restaurant, Review
from data.quarantine import QuarantinedRow, RowError, as_json, readable, row_error, shown


@dataclass(frozen=True)
class Annotation:
    """What one annotator said of one review, and when."""

    annotator: str
    label: Label
    annotated_at: datetime | None = None


@dataclass(frozen=True)
class SourceRow:
    """A row that was read whole: a review and at least one annotation.

    Attributes:
        row: position in the source, from 0.
        source: the row as it came.
    """

    row: int
    review: Review
    annotations: tuple[Annotation, ...]
    restaurant: Restaurant | None
    source: Any


Rows = Iterator[SourceRow | QuarantinedRow]


def quarantined(row: int, review_id: object, error: RowError, source: object) -> QuarantinedRow:
    """The quarantined row for an error met while reading."""
    known = isinstance(review_id, str | int) and not isinstance(review_id, bool)
    return QuarantinedRow(
        row=row,
        review_id=readable(str(review_id)) if known else None,
        reason=error.reason,
        detail=readable(str(error)),
        step="ingest",
        source=as_json(source),
    )


def encodable(value: object, where: str) -> None:
    """Refuse text that is not UTF-8: bytes that could not be decoded, or lone surrogates.

    Raises:
        RowError: the text cannot be written.
    """
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError(
                "undecodable_text",
                f"{where} is not UTF-8 at character {error.start}: {shown(readable(value))}; "
                "save the source as UTF-8, or type the row again",
            ) from error
    elif isinstance(value, dict):
        for key, item in value.items():
            encodable(key, where)
            encodable(item, f"{where}.{key}")
    elif isinstance(value, list):
        for item in value:
            encodable(item, where)


def read_identifier(value: object, where: str) -> str:
    """An identifier as a string; a whole number is one too.

    Raises:
        RowError: it is missing or of another type.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowError(
            "bad_review_id" if where == "review_id" else "bad_restaurant",
            f"{where} is {shown(value)}, expected a string or a whole number; add it to the row",
        )
    return str(value).strip()


def read_date(value: object, where: str) -> date | None:
    """A calendar day, from ``2025-10-31`` or a timestamp; empty is none.

    Raises:
        RowError: it is not a date.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return datetime.fromisoformat(str(value).strip()).date()
    except ValueError as error:
        raise RowError(
            "bad_date", f"{where} is {shown(value)}; write it as YYYY-MM-DD, or leave it empty"
        ) from error


def read_moment(value: object, where: str) -> datetime | None:
    """A moment in UTC, from an ISO 8601 timestamp; one without a zone is taken as UTC.

    Raises:
        RowError: it is not a timestamp.
    """
    if value is None or value == "":
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise RowError(
            "bad_date", f"{where} is {shown(value)}; write it as 2025-10-31T09:00:00Z"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def read_review(
    *, review_id: object, text: object, restaurant_id: object, written_on: object
) -> Review:
    """A review from a source's values.

    Raises:
        RowError: a value is missing, of the wrong type or out of range.
    """
    identifier = read_identifier(review_id, "review_id")
    if text is None:
        raise RowError("missing_text", f"review {identifier!r} has no text; add it to the row")
    if not isinstance(text, str):
        raise RowError("wrong_type", f"text is {shown(text)}, expected a string; quote it")
    if not text.strip():
        raise RowError("missing_text", f"text is {shown(text)}, nothing to read; leave the row out")
    if len(text) > MAX_REVIEW_CHARACTERS:
        raise RowError(
            "text_too_long",
            f"text has {len(text):,} characters, at most {MAX_REVIEW_CHARACTERS:,} are read; "
            "cut it to the review itself",
        )
    encodable(text, "text")
    at = None
    if restaurant_id is not None and restaurant_id != "":
        at = read_identifier(restaurant_id, "restaurant_id")
    try:
        return Review(
            review_id=identifier,
            text=text,
            restaurant_id=at,
            written_on=read_date(written_on, "written_on"),
        )
    except ValidationError as error:
        raise row_error(error) from error
