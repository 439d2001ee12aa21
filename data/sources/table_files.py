"""Cells of a CSV, TSV, JSON lines or Parquet file, one row at a time, whatever they mean.

A row that cannot be read comes as a ``RowError`` with the row as it stood, so that the rows after
it are read all the same. Bytes that are not in the encoding are kept as surrogates, and their row
is refused by whoever reads its cells.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import SettingsError, SourceError
from data.quarantine import RowError, shown

Cells = dict[str, Any]
NumberedCells = Iterator[tuple[int, Cells | RowError, object]]
"""Position from 0; the cells by column, or why there are none; the row as it stood."""

MAX_CELL_CHARACTERS: Final = 2**27
_SAMPLE_ROWS: Final = 1000
_KINDS: Final = (".csv", ".tsv", ".jsonl", ".parquet")


def read_cells(
    path: Path, *, required: Sequence[str], separator: str | None, quoted: bool, encoding: str
) -> NumberedCells:
    """Rows of a table, its kind told by its name (``.gz`` may follow).

    Args:
        required: columns that must be there.
        separator: between columns; ``None`` is a tab for .tsv and a comma for .csv.
        quoted: whether a quote at the start of a cell opens a quoted cell.
        encoding: of CSV and TSV; JSON lines are UTF-8.

    Raises:
        SettingsError: a required column is not in the table.
        SourceError: the table is missing, empty, damaged, or of an unknown kind.
    """
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind not in _KINDS:
        raise SourceError(
            f"{str(path)!r} ends in {kind!r}, known are {', '.join(_KINDS)} "
            "(.gz may follow); rename or convert the file"
        )
    if kind in {".csv", ".tsv"}:
        separator = separator or ("\t" if kind == ".tsv" else ",")
        rows = _read_csv(path, required, separator, quoted=quoted, encoding=encoding)
    else:
        rows = (_read_json_lines if kind == ".jsonl" else _read_parquet)(path, required)
    number = -1
    try:
        for number, (cells, source) in enumerate(rows):
            yield number, cells, source
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        raise SourceError(
            f"cannot read {str(path)!r} after {number + 1} rows: {error}; "
            f"give the path of a whole {kind} file"
        ) from error
    if number < 0:
        raise SourceError(f"{str(path)!r} holds no rows; give a table with at least one")


_Raw = Iterator[tuple[Cells | RowError, object]]


def _check_columns(required: Sequence[str], present: Sequence[str], path: Path) -> None:
    missing = [column for column in required if column not in present]
    if missing:
        raise SettingsError(
            f"the mapping names {', '.join(map(repr, missing))}, which {path.name!r} lacks; "
            f"its columns are {', '.join(map(repr, present))}: correct the mapping"
        )


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def _read_csv(
    path: Path, required: Sequence[str], separator: str, *, quoted: bool, encoding: str
) -> _Raw:
    csv.field_size_limit(MAX_CELL_CHARACTERS)  # a review too long is quarantined, not a crash
    with (
        _open(path) as file,
        io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="") as text,
    ):
        reader = csv.reader(
            text,
            delimiter=separator,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        columns = next(reader, None)
        if columns is None:
            return
        _check_columns(required, columns, path)
        for values in reader:
            if len(values) == len(columns):
                cells = dict(zip(columns, values, strict=True))
                yield cells, cells
            elif values:
                yield (
                    RowError(
                        "bad_row",
                        f"line {reader.line_num} has {len(values)} columns, expected "
                        f"{len(columns)}; quote the separator, or check quoting in the mapping",
                    ),
                    values,
                )


def _read_json_lines(path: Path, required: Sequence[str]) -> _Raw:
    with _open(path) as file:
        rows = (_read_json_line(n, line) for n, line in enumerate(file, start=1) if line.strip())
        first = list(islice(rows, _SAMPLE_ROWS))
        # A key may be left out of a row, so the columns are those of the first rows together.
        columns = [key for cells, _ in first if not isinstance(cells, RowError) for key in cells]
        if columns:
            _check_columns(required, list(dict.fromkeys(columns)), path)
        yield from first
        yield from rows


def _read_json_line(number: int, line: bytes) -> tuple[Cells | RowError, object]:
    source = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    try:
        cells = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as broken:
            return RowError(
                "undecodable_text",
                f"line {number} is not UTF-8 at byte {broken.start} "
                f"({line[broken.start]:#04x}); save the file as UTF-8",
            ), source
        return RowError("bad_row", f"line {number} is not JSON: {error}; mend the line"), source
    if not isinstance(cells, dict):
        return RowError(
            "bad_row", f"line {number} is {shown(cells)}, expected an object; mend the line"
        ), source
    return cells, cells


def _read_parquet(path: Path, required: Sequence[str]) -> _Raw:
    with pq.ParquetFile(path) as file:
        columns = [str(column) for column in file.schema_arrow.names]
        _check_columns(required, columns, path)
        for batch in file.iter_batches(columns=list(dict.fromkeys(required))):
            for cells in batch.to_pylist():
                yield cells, cells
