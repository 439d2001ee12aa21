"""The schema of accepted rows (pandera), and its failures as reasons of quarantine.

The contract has already checked each record by itself. Here stands what a policy may ask beyond
it, and what only shows in a whole table; every failure of every row is collected before any is
reported.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, cast

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from data.contract import INTENSITIES, SENTIMENTS, LabelledReview
from data.quarantine import Reason, shown

Failures = dict[int, list[tuple[Reason, str]]]
"""By position of the row, from 0."""

_MENDS: Final[dict[Reason, str]] = {
    "missing_text": "nothing to read; leave the row out",
    "text_too_short": "shorter than min_characters; leave the row out, or lower the limit",
    "text_too_long": "longer than max_characters; cut it, or raise the limit",
    "bad_date": "outside earliest and latest; correct the date",
    "bad_restaurant": "not among the snapshot's restaurants; add the restaurant to the source",
    "span_not_in_text": "a span is not verbatim in the text; mark it again",
    "label_outside_set": "outside the contract's set; choose one of it",
    "duplicate_review_id": "the id stands twice; give each review its own",
}


def frame_of(rows: Sequence[LabelledReview]) -> pd.DataFrame:
    """One line a review, with the columns that the schema speaks of."""
    return pd.DataFrame(
        {
            "review_id": pd.Series([row.review.review_id for row in rows], dtype="object"),
            "text": pd.Series([row.review.text for row in rows], dtype="object"),
            "restaurant_id": pd.Series([row.review.restaurant_id for row in rows], dtype="object"),
            "written_on": pd.Series([row.review.written_on for row in rows], dtype="object"),
            "sentiment": pd.Series([row.label.sentiment for row in rows], dtype="object"),
            "intensity": pd.Series([row.label.intensity for row in rows], dtype="object"),
            "spans": pd.Series([_spans_hold(row) for row in rows], dtype="bool"),
        }
    )


def _spans_hold(row: LabelledReview) -> bool:
    text = row.review.text
    return all(text[each.start : each.end] == each.text for each in row.label.evidence)


def _check(reason: Reason, holds: Any) -> pa.Check:
    return pa.Check(holds, name=reason, error=reason)


def label_schema(
    *,
    min_characters: int,
    max_characters: int,
    earliest: date | None,
    latest: date | None,
    restaurants: frozenset[str] | None,
) -> pa.DataFrameSchema:
    """The schema of a policy.

    Args:
        restaurants: known ids; ``None`` asks for none.
    """
    columns: dict[str, pa.Column] = {
        "review_id": pa.Column(
            "object", checks=_check("duplicate_review_id", lambda ids: ~ids.duplicated())
        ),
        "text": pa.Column(
            "object",
            checks=[
                _check("missing_text", lambda texts: texts.str.strip().str.len() > 0),
                _check("text_too_short", lambda texts: texts.str.len() >= min_characters),
                _check("text_too_long", lambda texts: texts.str.len() <= max_characters),
            ],
        ),
        "sentiment": pa.Column(
            "object",
            nullable=True,
            checks=_check("label_outside_set", lambda found: found.isin(SENTIMENTS)),
        ),
        "intensity": pa.Column(
            "object",
            nullable=True,
            checks=_check("label_outside_set", lambda found: found.isin(INTENSITIES)),
        ),
        "spans": pa.Column("bool", checks=_check("span_not_in_text", lambda holds: holds)),
        "written_on": pa.Column(
            "object",
            nullable=True,
            checks=[
                _check("bad_date", lambda days: days >= (earliest or date.min)),
                _check("bad_date", lambda days: days <= (latest or date.max)),
            ],
        ),
    }
    if restaurants is not None:
        known = _check("bad_restaurant", lambda ids: ids.isin(restaurants))
        columns["restaurant_id"] = pa.Column("object", nullable=False, checks=known)
    return pa.DataFrameSchema(columns, index=pa.Index(int, unique=True))


def schema_failures(frame: pd.DataFrame, schema: pa.DataFrameSchema) -> Failures:
    """Every failure of every row."""
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
    else:
        return {}
    failures: Failures = {}
    for case in cases.to_dict("records"):
        if pd.isna(case["index"]):
            raise error_of_shape(case)
        reason: Reason = (
            cast("Reason", case["check"]) if case["check"] in _MENDS else "bad_restaurant"
        )
        value = case["failure_case"]
        what = "a span" if reason == "span_not_in_text" else f"{case['column']} is {shown(value)}"
        detail = f"{what}: {_MENDS[reason]}"
        failures.setdefault(int(case["index"]), []).append((reason, detail))
    return failures


def error_of_shape(case: dict[Any, Any]) -> AssertionError:
    """A failure of the whole table is our own bug: ``frame_of`` gives every column."""
    return AssertionError(f"the label frame has not the schema's shape: {case}")
