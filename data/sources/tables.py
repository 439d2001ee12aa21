"""Labels from a plain table: CSV, TSV, JSON lines or Parquet, read through a mapping of columns.

A mapping is a YAML file, for instance for reviews with a star rating::

    text: document
    review_id: id
    rating: rating
    rating_to_intensity: {1: -2, 2: -1, 3: 0, 4: 1, 5: 2}

Sentiment then follows the sign of intensity. A task without a column stays unlabelled. One bad row
is quarantined with its reason; a table that cannot be read at all is a ``SourceError``.
"""

import codecs
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data.contract import (
    EMOTIONS,
    INTENSITIES,
    SENTIMENTS,
    Intensity,
    Label,
    Restaurant,
    Sentiment,
    check_contract_version,
)
from data.quarantine import RowError, row_error, shown
from data.settings import parse_settings
from data.sources.rows import (
    Annotation,
    Rows,
    SourceRow,
    encodable,
    quarantined,
    read_identifier,
    read_moment,
    read_review,
)
from data.sources.table_files import Cells, read_cells

_SIGNS: Final[tuple[Sentiment, ...]] = ("neutral", "positive", "negative")
"""Sentiment by the sign of intensity: index 0, 1 and -1."""
_SENTIMENT_CODES: Final[dict[str, Sentiment]] = {sentiment: sentiment for sentiment in SENTIMENTS}
_INTENSITY_CODES: Final[dict[str, Intensity]] = {str(step): step for step in INTENSITIES}
_RESTAURANT_FIELDS: Final = ("name", "category", "region", "price_band")


class TableMapping(BaseModel):
    """Which column holds what. Every value but ``text`` may be left out.

    Attributes:
        review_id: without it, rows are named after the file and their position.
        sentiment_values: the column's codes to the contract's; without it they are the same.
        rating_to_intensity: each rating there is to an intensity; sentiment is its sign, unless
            there is a sentiment column.
        emotions: a list, or codes joined by ``|`` or ``,``; empty or ``none`` is no emotion.
        aspects: an object, JSON, or ``food:positive|price:negative``; empty is no aspect.
        aspects_left_out: aspects of the table that the contract does not know and that are
            passed over; any other unknown one quarantines its row.
        separator: between columns; by default a tab for .tsv and a comma for .csv.
        quoting: ``none`` where quotes are part of the text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    review_id: str | None = None
    restaurant_id: str | None = None
    restaurant_columns: dict[Literal["name", "category", "region", "price_band"], str] = Field(
        default_factory=dict
    )
    written_on: str | None = None
    annotator: str | None = None
    annotated_at: str | None = None
    sentiment: str | None = None
    sentiment_values: dict[str, Sentiment] = Field(default_factory=dict)
    intensity: str | None = None
    rating: str | None = None
    rating_to_intensity: dict[str, Intensity] = Field(default_factory=dict)
    emotions: str | None = None
    aspects: str | None = None
    aspects_left_out: tuple[str, ...] = ()
    contract_version: str | None = None
    separator: str | None = Field(default=None, min_length=1, max_length=1)
    quoting: Literal["none", "minimal"] = "minimal"
    encoding: str = "utf-8-sig"

    @field_validator("rating_to_intensity", "sentiment_values", mode="before")
    @classmethod
    def _keys_are_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {_code(key): item for key, item in value.items()}

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, value: str) -> str:
        try:
            codecs.lookup(value)
        except LookupError as error:
            raise ValueError(f"unknown encoding {value!r}; use utf-8 or cp949") from error
        return value

    @model_validator(mode="after")
    def _something_is_mapped(self) -> "TableMapping":
        if (self.rating is None) != (not self.rating_to_intensity):
            raise ValueError("rating and rating_to_intensity go together; give both or neither")
        if self.rating is not None and self.intensity is not None:
            raise ValueError("rating and intensity both give the intensity; keep one of them")
        if not any((self.sentiment, self.intensity, self.rating, self.emotions, self.aspects)):
            raise ValueError(
                "no label column; map one of sentiment, intensity, rating, emotions, aspects"
            )
        if self.restaurant_columns and (
            self.restaurant_id is None or len(self.restaurant_columns) < len(_RESTAURANT_FIELDS)
        ):
            raise ValueError("restaurant_columns needs restaurant_id and all of its four columns")
        return self

    def columns(self) -> list[str]:
        """Columns that must be there."""
        named = (
            *(self.text, self.review_id, self.restaurant_id, self.written_on, self.annotator),
            *(self.annotated_at, self.sentiment, self.intensity, self.rating, self.emotions),
            *(self.aspects, *self.restaurant_columns.values()),
        )
        return [column for column in named if column is not None]


def parse_mapping(text: str) -> TableMapping:
    """A mapping from its YAML text.

    Raises:
        SettingsError: it is not YAML, or a key or value in it is wrong; all are named.
        ContractError: it is written for another major version of the contract.
    """
    mapping = parse_settings(TableMapping, text, where="the mapping")
    if mapping.contract_version is not None:
        check_contract_version(mapping.contract_version, where="the mapping")
    return mapping


def _code(value: object) -> str:
    """A value as a code: 5, 5.0 and '5' are one."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip().removesuffix(".0")


def read_table(path: Path, mapping: TableMapping) -> Rows:
    """Rows of a table.

    Raises:
        SettingsError: a mapped column is not in the table.
        SourceError: the table is missing, empty, damaged, or of an unknown kind.
    """
    stem = path.name.split(".", maxsplit=1)[0]
    numbered = read_cells(
        path,
        required=mapping.columns(),
        separator=mapping.separator,
        quoted=mapping.quoting == "minimal",
        encoding=mapping.encoding,
    )
    for row, cells, source in numbered:
        review_id: object = None
        try:
            if isinstance(cells, RowError):
                raise cells
            review_id = cells.get(mapping.review_id) if mapping.review_id else f"{stem}-{row}"
            yield _read_row(row, review_id, cells, mapping)
        except RowError as error:
            yield quarantined(row, review_id, error, source)


def _read_row(row: int, review_id: object, cells: Cells, mapping: TableMapping) -> SourceRow:
    encodable(cells, "row")
    restaurant_id = cells.get(mapping.restaurant_id) if mapping.restaurant_id else None
    review = read_review(
        review_id=review_id,
        text=cells.get(mapping.text),
        restaurant_id=restaurant_id,
        written_on=cells.get(mapping.written_on) if mapping.written_on else None,
    )
    annotator = cells.get(mapping.annotator) if mapping.annotator else None
    annotation = Annotation(
        annotator="table" if annotator in {None, ""} else str(annotator),
        label=_read_label(cells, mapping),
        annotated_at=read_moment(cells.get(mapping.annotated_at), "annotated_at")
        if mapping.annotated_at
        else None,
    )
    return SourceRow(row, review, (annotation,), _read_restaurant(cells, mapping), cells)


def _read_restaurant(cells: Cells, mapping: TableMapping) -> Restaurant | None:
    if not mapping.restaurant_columns or mapping.restaurant_id is None:
        return None
    values = {field: cells.get(column) for field, column in mapping.restaurant_columns.items()}
    identifier = read_identifier(cells.get(mapping.restaurant_id), "restaurant_id")
    try:
        return Restaurant.model_validate(values | {"restaurant_id": identifier})
    except ValidationError as error:
        raise row_error(error, "restaurant") from error


def _mapped(cells: Cells, column: str, values: Mapping[str, Any]) -> Any:
    """A column's code in the contract's words; an empty cell is ``None``."""
    cell = cells.get(column)
    if cell is None or cell == "":
        return None
    code = _code(cell)
    if code not in values:
        raise RowError(
            "label_outside_set",
            f"{column} is {shown(cell)}, which is outside the set {', '.join(values)}; "
            "correct the row, or map the value",
        )
    return values[code]


def _read_label(cells: Cells, mapping: TableMapping) -> Label:
    fields: dict[str, Any] = {}
    if mapping.rating is not None:
        fields["intensity"] = _mapped(cells, mapping.rating, mapping.rating_to_intensity)
        if mapping.sentiment is None and fields["intensity"] is not None:
            fields["sentiment"] = _SIGNS[(fields["intensity"] > 0) - (fields["intensity"] < 0)]
    if mapping.intensity is not None:
        fields["intensity"] = _mapped(cells, mapping.intensity, _INTENSITY_CODES)
    if mapping.sentiment is not None:
        values = mapping.sentiment_values or _SENTIMENT_CODES
        fields["sentiment"] = _mapped(cells, mapping.sentiment, values)
    if mapping.emotions is not None:
        fields["emotions"] = _read_emotions(cells.get(mapping.emotions))
    if mapping.aspects is not None:
        aspects = _read_aspects(cells.get(mapping.aspects), mapping.aspects_left_out)
        fields["aspects"] = aspects
    if all(value is None for value in fields.values()):
        raise RowError("unlabelled", "the row labels no task: all label cells are empty; fill one")
    try:
        return Label.model_validate(fields)
    except ValidationError as error:
        raise row_error(error) from error


def _read_emotions(cell: object) -> list[str] | None:
    if cell is None:
        return None
    if isinstance(cell, str):
        found: Sequence[object] = [part.strip() for part in cell.replace(",", "|").split("|")]
    elif isinstance(cell, list):
        found = cell
    else:
        raise RowError("wrong_type", f"emotions is {shown(cell)}, expected a list or joy|anger")
    for emotion in found:
        if emotion not in {*EMOTIONS, "", "none"}:
            raise RowError(
                "label_outside_set",
                f"emotions has {shown(emotion)}, which is outside the set {', '.join(EMOTIONS)}",
            )
    return [str(emotion) for emotion in found if emotion not in {"", "none"}]


def _read_aspects(cell: object, left_out: Collection[str]) -> dict[str, object] | None:
    if isinstance(cell, str) and cell.lstrip().startswith("{"):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError as error:
            raise RowError(
                "wrong_type", f"aspects is {shown(cell)}, which is not JSON: {error.msg}; mend it"
            ) from error
    if cell is None:
        return None
    if isinstance(cell, dict):
        # A Parquet struct has every field in every row; null is an aspect that was not labelled.
        return {
            str(aspect): polarity
            for aspect, polarity in cell.items()
            if polarity is not None and aspect not in left_out
        }
    if not isinstance(cell, str):
        raise RowError(
            "wrong_type", f"aspects is {shown(cell)}, expected JSON or food:positive|price:negative"
        )
    aspects: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in cell.split("|"))):
        aspect, _, polarity = (word.strip() for word in part.partition(":"))
        if aspect in aspects:
            raise RowError(
                "labelled_twice", f"aspects has {aspect!r} twice: {shown(cell)}; keep one polarity"
            )
        if aspect not in left_out:
            aspects[aspect] = polarity
    return aspects
