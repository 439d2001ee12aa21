import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import ContractError, SettingsError, SourceError
from data.quarantine import QuarantinedRow
from data.snapshot import ingest_labels
from data.sources.rows import SourceRow
from data.sources.tables import TableMapping, parse_mapping, read_table

STARS = TableMapping.model_validate(
    {
        "text": "text",
        "review_id": "id",
        "rating": "stars",
        "rating_to_intensity": {1: -2, 2: -1, 3: 0, 4: 1, 5: 2},
    }
)


def read(path: Path, mapping: TableMapping) -> tuple[list[SourceRow], list[QuarantinedRow]]:
    rows = list(read_table(path, mapping))
    return [row for row in rows if isinstance(row, SourceRow)], [
        row for row in rows if isinstance(row, QuarantinedRow)
    ]


def test_ratings_become_sentiment_and_intensity_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "stars.csv"
    path.write_text('id,text,stars\n1,"맛, 좋아요",5\n2,별로,2.0\n3,보통,3\n4,최고,6\n', "utf-8")
    good, bad = read(path, STARS)
    labels = [row.annotations[0].label for row in good]
    assert [(x.sentiment, x.intensity) for x in labels] == [
        ("positive", 2),
        ("negative", -1),
        ("neutral", 0),
    ]
    assert all(label.emotions is None and label.aspects is None for label in labels)
    assert good[0].review.text == "맛, 좋아요"
    assert [(row.row, row.reason, row.review_id) for row in bad] == [(3, "label_outside_set", "4")]
    assert "'6'" in bad[0].detail


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "text": '그는 "최고" 라고', "mood": "joy|surprise", "about": "food:mixed"},
        {"id": "b", "text": "보통", "mood": "none", "about": ""},
    ]
    mapping = TableMapping(text="text", review_id="id", emotions="mood", aspects="about")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "a.jsonl").write_text(lines, "utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    tabs = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    with gzip.open(tmp_path / "a.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(tabs) + "\n")
    unquoted = mapping.model_copy(update={"quoting": "none"})
    found = [
        [(row.review, row.annotations[0].label) for row in read(tmp_path / name, chosen)[0]]
        for name, chosen in (("a.jsonl", mapping), ("a.parquet", mapping), ("a.tsv.gz", unquoted))
    ]
    assert found[0] == found[1] == found[2]
    first, second = (label for _, label in found[0])
    assert (first.emotions, first.aspects) == (("joy", "surprise"), {"food": "mixed"})
    assert (second.emotions, second.aspects) == ((), {})


def test_nested_values_and_positional_ids(tmp_path: Path) -> None:
    path = tmp_path / "dev.jsonl"
    path.write_text(
        '{"t": "좋아요", "s": "pos", "a": {"food": "positive", "price": null}}\n', "utf-8"
    )
    mapping = TableMapping(
        text="t", sentiment="s", sentiment_values={"pos": "positive"}, aspects="a"
    )
    (row,), _ = read(path, mapping)
    assert row.review.review_id == "dev-0"
    assert row.annotations[0].label.aspects == {"food": "positive"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 2, "text": 5, "s": "positive"}', "wrong_type"),
        (b'{"id": 2, "text": "a", "s": "great"}', "label_outside_set"),
        (b'{"id": 2, "text": "a", "s": null}', "unlabelled"),
        (b'{"id": 2, "text": "a"}', "unlabelled"),
        (b'{"id": 2, "s": "positive"}', "missing_text"),
        (b'{"id": true, "text": "a", "s": "positive"}', "bad_review_id"),
        (b'{"id": 2, "text": "a\xff", "s": "positive"}', "undecodable_text"),
        (b"[1, 2]", "bad_row"),
        (b'{"id": 2', "bad_row"),
        (b'{"id": 2, "text": "' + b"a" * 100_000 + b'", "s": "positive"}', "text_too_long"),
    ],
)
def test_a_bad_line_fails_no_other(line: bytes, reason: str, tmp_path: Path) -> None:
    fine = b'{"id": 1, "text": "a", "s": "positive"}\n'
    path = tmp_path / "a.jsonl"
    path.write_bytes(fine + line + b"\n" + fine)
    good, bad = read(path, TableMapping(text="text", review_id="id", sentiment="s"))
    assert [row.row for row in good] == [0, 2]
    assert [(row.row, row.reason) for row in bad] == [(1, reason)]


def test_csv_rows_that_break_are_isolated(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text,stars\n1,\xb8\xc0,5\n2,a,b,5\n3,fine,5\n")
    good, bad = read(path, STARS)
    assert [row.review.review_id for row in good] == ["3"]
    assert [row.reason for row in bad] == ["undecodable_text", "bad_row"]
    korean = STARS.model_copy(update={"encoding": "cp949"})
    assert read(path, korean)[0][0].review.text == "맛"


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("a.csv", b"id,body,stars\n1,a,5\n", SettingsError, "'text'.*'id', 'body', 'stars'"),
        ("a.csv", b"", SourceError, "no rows"),
        ("a.csv", b"id,text,stars\n", SourceError, "no rows"),
        ("a.jsonl", b"\n\n", SourceError, "no rows"),
        ("a.jsonl", b'{"id": 1}\n', SettingsError, "'text', 'stars'"),
        ("a.parquet", b"not parquet", SourceError, "whole .parquet"),
        ("a.csv.gz", b"not gzip", SourceError, "whole .csv"),
        ("a.xlsx", b"x", SourceError, "convert"),
    ],
)
def test_tables_that_cannot_be_read(
    name: str, content: bytes, error: type[Exception], says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=says):
        list(read_table(tmp_path / name, STARS))


def test_a_missing_table_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        list(read_table(tmp_path / "none.csv", STARS))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("text: a", "no label column"),
        ("text: a\nrating: r", "go together"),
        ("text: a\nsentiment: s\ncolour: c", "colour"),
        ("sentiment: s", "text"),
        ("text: a\nrating: r\nrating_to_intensity: {1: 9}", "rating_to_intensity"),
        ("text: a\nsentiment: s\nencoding: klingon", "klingon"),
        ("[", "not YAML"),
        ("", "mapping"),
    ],
)
def test_a_wrong_mapping_names_its_key(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parse_mapping(text)


def test_a_mapping_of_another_contract_is_refused() -> None:
    with pytest.raises(ContractError, match=r"9\.0"):
        parse_mapping("text: a\nsentiment: s\ncontract_version: '9.0'")


def test_aspects_that_the_contract_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "labels.tsv"
    path.write_text("t\ta\n굿\tfood:positive|other:negative\n", "utf-8")
    known = TableMapping(text="t", aspects="a", aspects_left_out=("other",))
    (row,) = read_table(path, known)
    assert isinstance(row, SourceRow)
    assert row.annotations[0].label.aspects == {"food": "positive"}
    (refused,) = read_table(path, TableMapping(text="t", aspects="a"))
    assert not isinstance(refused, SourceRow)


@pytest.mark.real_data
def test_star_ratings_of_the_real_corpus(tmp_path: Path) -> None:
    beside = Path(__file__).parents[4] / "shared" / "data"
    folder = Path(os.environ.get("MATJIP_REAL_DATA") or beside)
    source = folder / "nsmc_stars_dev.tsv.gz"
    if not source.is_file():
        pytest.skip(f"no real data at {str(source)!r}; set MATJIP_REAL_DATA")
    steps = "{1: -2, 2: -2, 3: -1, 4: -1, 5: 0, 6: 0, 7: 0, 8: 0, 9: 1, 10: 2}"
    mapping = (
        "text: document\nreview_id: id\nrating: rating\nquoting: none\n"
        f"rating_to_intensity: {steps}\n"
    )
    facts = ingest_labels(str(source), "table", mapping, "stars", tmp_path / "s").facts
    assert (facts["rows_in"], facts["quarantined"]) == (6000, 0)
