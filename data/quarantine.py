"""Rows that cannot be used, each with its reason, kept so that they can go back to the labellers.

A row is never dropped: it is accepted or it is here. Reasons are stable codes; the detail is a
sentence that names the field, the value and the mend.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from data.errors import ArtifactError, ContractError
from data.manifest import write_text_atomically

Step = Literal["ingest", "validate", "targets"]
Reason = Literal[
    # the row cannot be read
    "undecodable_text",
    "bad_row",
    "wrong_type",
    # the review
    "missing_text",
    "text_too_short",
    "text_too_long",
    "bad_review_id",
    "bad_restaurant",
    "bad_date",
    # the label
    "no_annotation",
    "unlabelled",
    "label_outside_set",
    "labelled_twice",
    "span_not_in_text",
    "label_contradiction",
    # a written summary
    "unknown_review",
    "too_little_support",
    "incomplete_label",
    "target_too_long",
    # against other rows
    "duplicate_review_id",
    "duplicate_text",
    "duplicate_restaurant",
]
SHOWN_CHARACTERS: Final = 120
"""As much of a value as a message shows."""


class QuarantinedRow(BaseModel):
    """A row that was not accepted, and why.

    Attributes:
        row: position in the source, from 0.
        source: the row as it came, as JSON.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    review_id: str | None
    reason: Reason
    detail: str
    step: Step
    source: Any


class RowError(ContractError):
    """One row is outside the contract; the readers turn it into a quarantined row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason


def shown(value: object) -> str:
    """A value's ``repr``, cut to what a message can hold."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


_FIELD_REASONS: Final[dict[str, Reason]] = {
    "review_id": "bad_review_id",
    "restaurant_id": "bad_restaurant",
    "restaurant": "bad_restaurant",
    "written_on": "bad_date",
}
_TEXT_REASONS: Final[dict[str, Reason]] = {
    "missing": "missing_text",
    "string_too_short": "missing_text",
    "string_too_long": "text_too_long",
    "string_unicode": "undecodable_text",
}


def row_error(error: ValidationError, field: str | None = None) -> RowError:
    """A pydantic error of one row as a ``RowError``; ``field`` names the part that was read."""
    first = error.errors(include_url=False)[0]
    where = [*([field] if field else []), *(str(part) for part in first["loc"])]
    name = where[0] if where else "row"
    if name == "text":
        reason = _TEXT_REASONS.get(first["type"], "wrong_type")
    elif first["type"].endswith("_type") and name not in {"restaurant_id", "restaurant"}:
        reason = "wrong_type"
    else:
        reason = _FIELD_REASONS.get(name, "label_outside_set")
    size = f" ({len(first['input']):,} characters)" if isinstance(first["input"], str) else ""
    return RowError(
        reason,
        f"{'.'.join(where)} is {shown(first['input'])}{size}: {first['msg']}; "
        "correct the field, or leave the row out",
    )


def readable(text: str) -> str:
    r"""Text that can be written: bad bytes as ``\xff``, lone surrogates as ``\ud83d``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_json(value: object) -> Any:
    """A value that JSON can hold; text that is not UTF-8 is written with backslashes."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {readable(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return readable(str(value))


def write_quarantine(path: Path, rows: Iterable[QuarantinedRow]) -> None:
    """Write one quarantined row a line."""
    write_text_atomically(path, "".join(f"{row.model_dump_json()}\n" for row in rows))


def read_quarantine(path: Path) -> Iterator[QuarantinedRow]:
    """Read what ``write_quarantine`` wrote.

    Raises:
        ArtifactError: a line is not a quarantined row.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield QuarantinedRow.model_validate_json(line)
            except ValidationError as error:
                raise ArtifactError(
                    f"{str(path)!r} line {number} is not a quarantined row: {error}; "
                    "run the step that wrote it again"
                ) from error


def reason_counts(rows: Iterable[QuarantinedRow]) -> dict[str, int]:
    """How many rows each reason has, most first."""
    counts = Counter(row.reason for row in rows)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def dump_lines(rows: Iterable[object]) -> str:
    """Values as JSON lines, keys in their order, Korean unescaped."""
    return "".join(orjson.dumps(row).decode() + "\n" for row in rows)
