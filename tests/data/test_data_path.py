"""The whole way through the room: export, snapshot, validated, split."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.manifest import read_labelled_reviews, read_manifest
from data.snapshot import ingest_labels
from data.splits import check_leakage, split_dataset
from data.validation import ValidationPolicy, validate_labels

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def run(source: str, root: Path) -> dict[str, Any]:
    ingest_labels(source, "label_studio_file", None, "1.0", root / "snapshot")
    validate_labels(root / "snapshot", root / "validated", ValidationPolicy())
    split = split_dataset(root / "validated", root / "split", FRACTIONS, 7, "restaurant")
    return split.facts | {"digest": split.digest}


def test_rows_go_through_and_nothing_is_lost(
    tasks: list[dict[str, Any]], export: Callable[[object], str], tmp_path: Path
) -> None:
    facts = run(export(tasks), tmp_path)
    validated = read_manifest(tmp_path / "validated", "validated").facts
    assert validated["rows_in"] == len(tasks) == validated["accepted"] + validated["quarantined"]
    assert sum(facts["rows"].values()) + facts["left_out"] == validated["accepted"]
    assert all(facts["rows"].values())
    assert sum(facts["restaurants"].values()) == 10
    check_leakage(tmp_path / "split")


def test_equal_input_gives_equal_digests(
    tasks: list[dict[str, Any]], export: Callable[[object], str], tmp_path: Path
) -> None:
    source = export(tasks)
    assert run(source, tmp_path / "a") == run(source, tmp_path / "b")


def test_one_edited_label_changes_the_snapshot(
    tasks: list[dict[str, Any]], export: Callable[[object], str], tmp_path: Path
) -> None:
    before = run(export(tasks), tmp_path / "a")
    edited = json.loads(json.dumps(tasks))
    edited[5]["annotations"][0]["result"][2]["value"]["choices"] = ["surprise"]
    after = run(export(edited), tmp_path / "b")
    assert before["snapshot_id"] != after["snapshot_id"]
    assert before["digest"] != after["digest"]
    train = read_labelled_reviews(tmp_path / "b" / "split" / "train.jsonl")
    assert len(list(train)) == after["rows"]["train"]
