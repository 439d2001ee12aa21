"""Targets of the gold corpus, through every step of the room; and of splits made by hand."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from data.answers import ANSWERS, decoding_schema, read_answer
from data.artifacts import PARTS, QUARANTINE_NAME, SPLIT_KIND, TARGETS_KIND
from data.contract import LabelledReview, RestaurantSummary
from data.errors import ArtifactError, SourceError
from data.leakage import read_parts
from data.manifest import (
    Manifest,
    read_manifest,
    start_artifact,
    write_labelled_reviews,
    write_manifest,
)
from data.prompts import TASKS, Task, prompt_version
from data.quarantine import QuarantinedRow, read_quarantine
from data.snapshot import ingest_labels
from data.splits import split_dataset
from data.targets import SUMMARIES_NAME, Example, build_targets, points_of, read_examples
from data.validation import ValidationPolicy, validate_labels

GOLD = Path(__file__).resolve().parents[2] / "data" / "gold"
SUMMARIES = GOLD / "summaries.json"
FRACTIONS = {"train": 0.6, "validation": 0.15, "test": 0.25}


@dataclass(frozen=True)
class Gold:
    split: Path
    folder: Path
    manifest: Manifest
    reviews: dict[str, list[LabelledReview]]
    examples: dict[str, list[Example]]
    summaries: list[RestaurantSummary]

    def all(self) -> list[Example]:
        return [each for part in self.examples.values() for each in part]


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Gold:
    root = tmp_path_factory.mktemp("gold")
    source = str(GOLD / "reviews.json")
    ingest_labels(source, "label_studio_file", None, "1.0", root / "snapshot")
    validate_labels(root / "snapshot", root / "validated", ValidationPolicy(label_errors=False))
    split_dataset(root / "validated", root / "split", FRACTIONS, 20261101, "restaurant")
    manifest = build_targets(root / "split", SUMMARIES, root / "targets")
    lines = (root / "targets" / SUMMARIES_NAME).read_bytes().splitlines()
    return Gold(
        split=root / "split",
        folder=root / "targets",
        manifest=manifest,
        reviews=read_parts(root / "split"),
        examples={name: read_examples(root / "targets" / f"{name}.jsonl") for name in PARTS},
        summaries=[RestaurantSummary.model_validate_json(line) for line in lines],
    )


@cache
def validator(task: Task, numbered: int) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(decoding_schema(task, numbered))


def rows_of(gold: Gold, restaurant: str) -> list[LabelledReview]:
    rows = [row for part in gold.reviews.values() for row in part]
    return [row for row in rows if row.review.restaurant_id == restaurant]


def test_nothing_of_the_gold_corpus_is_quarantined(gold: Gold) -> None:
    facts = gold.manifest.facts
    assert list(read_quarantine(gold.folder / QUARANTINE_NAME)) == []
    assert (facts["quarantined"], facts["reasons"]) == (0, {})
    assert sum(facts["restaurants"].values()) == len(gold.summaries) == 49
    counted = {
        name: {task: sum(each.task == task for each in examples) for task in TASKS}
        for name, examples in gold.examples.items()
    }
    assert counted == facts["examples"]
    assert sum(each["labels"] for each in counted.values()) == 919
    assert {each["overall"] for each in counted.values()} == set(facts["restaurants"].values())
    assert all(count for tasks in counted.values() for count in tasks.values())


def test_the_manifest_says_what_they_were_built_from(gold: Gold) -> None:
    manifest = read_manifest(gold.folder, TARGETS_KIND)
    split = read_manifest(gold.split, SPLIT_KIND)
    assert manifest.digest == gold.manifest.digest
    assert manifest.facts["split_digest"] == split.digest
    assert manifest.facts["snapshot_id"] == split.facts["snapshot_id"]
    assert manifest.facts["prompts"] == {task: prompt_version(task) for task in TASKS}


def test_every_answer_obeys_its_own_schema(gold: Gold) -> None:
    for example in gold.all():
        value = orjson.loads(example.answer)
        errors = list(validator(example.task, example.numbered).iter_errors(value))
        assert errors == [], (example.about, example.task)
        reading = read_answer(ANSWERS[example.task], example.answer, example.numbered)
        assert reading.obeyed
        assert list(value) == list(ANSWERS[example.task].model_fields)


def test_no_answer_may_cite_beyond_its_prompt(gold: Gold) -> None:
    refused = 0
    for example in gold.all():
        last = f'"#{example.numbered}"'
        if last in example.answer and example.numbered > 1:
            fewer = validator(example.task, example.numbered - 1)
            assert not fewer.is_valid(orjson.loads(example.answer))
            refused += 1
    assert refused > 100


def test_every_prompt_numbers_its_lines_from_one(gold: Gold) -> None:
    for example in gold.all():
        words = example.messages[1]["content"].split()
        assert [word for word in words if word.startswith("#")] == [
            f"#{number}" for number in range(1, example.numbered + 1)
        ]


def test_an_aspect_is_asked_of_every_line_that_speaks_of_it(gold: Gold) -> None:
    for example in gold.all():
        if example.task == "aspect":
            points = points_of(rows_of(gold, example.about))
            assert example.numbered == sum(point.aspect == example.aspect for point in points)


def test_no_example_stands_on_two_sides(gold: Gold) -> None:
    restaurants = {
        row.review.review_id: row.review.restaurant_id
        for rows in gold.reviews.values()
        for row in rows
    }
    about = {
        name: {restaurants.get(example.about, example.about) for example in examples}
        for name, examples in gold.examples.items()
    }
    tested = {row.review.restaurant_id for row in gold.reviews["test"]}
    assert tested
    assert about["test"] == tested
    assert not about["train"] & (about["test"] | about["validation"])
    prompts = [{each.messages[1]["content"] for each in gold.examples[name]} for name in PARTS]
    assert not prompts[0] & prompts[2]


def test_equal_input_gives_an_equal_digest_also_over_an_older_run(
    gold: Gold, tmp_path: Path
) -> None:
    first = build_targets(gold.split, SUMMARIES, tmp_path / "targets")
    again = build_targets(gold.split, SUMMARIES, tmp_path / "targets")
    assert first.digest == again.digest == gold.manifest.digest


def test_without_summaries_labels_alone_are_taught(gold: Gold, tmp_path: Path) -> None:
    facts = build_targets(gold.split, None, tmp_path / "targets").facts
    assert facts["summaries"] is None
    assert facts["restaurants"] == dict.fromkeys(PARTS, 0)
    for name in PARTS:
        labels = [each for each in gold.examples[name] if each.task == "labels"]
        assert read_examples(tmp_path / "targets" / f"{name}.jsonl") == labels
    assert (tmp_path / "targets" / SUMMARIES_NAME).read_bytes() == b""


def write_split(folder: Path, **parts: Sequence[LabelledReview]) -> Path:
    start_artifact(folder)
    for name in PARTS:
        write_labelled_reviews(folder / f"{name}.jsonl", parts.get(name, ()))
    write_manifest(folder, SPLIT_KIND, {"snapshot_id": "s"})
    return folder


def write_summaries(path: Path, *summaries: RestaurantSummary | dict[str, Any]) -> Path:
    rows = [each if isinstance(each, dict) else each.model_dump(mode="json") for each in summaries]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def built(
    split: Path, summaries: Path | None, out: Path
) -> tuple[Manifest, list[QuarantinedRow], list[str]]:
    manifest = build_targets(split, summaries, out)
    lines = (out / SUMMARIES_NAME).read_bytes().splitlines()
    standing = [RestaurantSummary.model_validate_json(line).restaurant_id for line in lines]
    return manifest, list(read_quarantine(out / QUARANTINE_NAME)), standing


def relabelled(row: LabelledReview, **label: Any) -> LabelledReview:
    return row.model_copy(update={"label": row.label.model_copy(update=label)})


def test_incomplete_labels_are_quarantined_and_the_others_taught(
    gold: Gold, tmp_path: Path
) -> None:
    whole, bare, unlabelled = gold.reviews["train"][:3]
    bare = relabelled(bare, aspects={"food": "positive"}, evidence=())
    unlabelled = relabelled(unlabelled, emotions=None)
    split = write_split(tmp_path / "split", train=[whole, bare, unlabelled])
    manifest, quarantined, _ = built(split, None, tmp_path / "targets")
    assert [(each.row, each.review_id, each.reason, each.step) for each in quarantined] == [
        (1, bare.review.review_id, "incomplete_label", "targets"),
        (2, unlabelled.review.review_id, "incomplete_label", "targets"),
    ]
    assert quarantined[0].source == bare.model_dump(mode="json")
    assert manifest.facts["reasons"] == {"incomplete_label": 2}
    taught = read_examples(tmp_path / "targets" / "train.jsonl")
    assert [each.about for each in taught] == [whole.review.review_id]


def test_too_much_evidence_is_quarantined(gold: Gold, tmp_path: Path) -> None:
    row = max(gold.reviews["train"], key=lambda each: len(each.review.text))
    evidence = [
        {
            "aspect": aspect,
            "polarity": polarity,
            "start": 0,
            "end": len(row.review.text),
            "text": row.review.text,
        }
        for aspect in ("food", "service")
        for polarity in ("negative", "positive")
    ]
    label = row.label.model_dump() | {
        "aspects": {"food": "mixed", "service": "mixed"},
        "evidence": evidence,
    }
    much = LabelledReview.model_validate({"review": row.review.model_dump(), "label": label})
    split = write_split(tmp_path / "split", train=[much])
    _, quarantined, _ = built(split, None, tmp_path / "targets")
    assert [each.reason for each in quarantined] == ["target_too_long"]
    assert "an answer holds 16" in quarantined[0].detail


def test_summaries_that_do_not_stand_are_quarantined_with_their_row(
    gold: Gold, tmp_path: Path
) -> None:
    first, second, third = gold.summaries[:3]
    rows = [row for each in (first, second) for row in rows_of(gold, each.restaurant_id)]
    split = write_split(tmp_path / "split", train=rows)
    of_nothing = second.model_dump(mode="json")
    of_nothing["summary"]["aspects"] = {}
    path = write_summaries(tmp_path / "s.json", third, of_nothing, first)
    manifest, quarantined, standing = built(split, path, tmp_path / "targets")
    assert [(each.row, each.reason) for each in quarantined] == [
        (0, "bad_restaurant"),
        (1, "too_little_support"),
    ]
    assert [each.source["restaurant_id"] for each in quarantined] == [
        third.restaurant_id,
        second.restaurant_id,
    ]
    assert standing == [first.restaurant_id]
    assert manifest.facts["restaurants"] == {"train": 1, "validation": 0, "test": 0}
    assert sum(manifest.facts["restaurants"].values()) + len(quarantined) == 3
    tasks = {each.task: each.about for each in read_examples(tmp_path / "targets" / "train.jsonl")}
    assert tasks["overall"] == first.restaurant_id


def test_a_restaurant_on_two_sides_is_not_summarised_on_either(gold: Gold, tmp_path: Path) -> None:
    summary = gold.summaries[0]
    rows = rows_of(gold, summary.restaurant_id)
    split = write_split(tmp_path / "split", train=rows[:5], test=rows[5:])
    path = write_summaries(tmp_path / "s.json", summary)
    _, quarantined, standing = built(split, path, tmp_path / "targets")
    assert [each.reason for each in quarantined] == ["bad_restaurant"]
    assert "has reviews in train and test" in quarantined[0].detail
    assert "split by restaurant" in quarantined[0].detail
    assert standing == []
    for name in PARTS:
        examples = read_examples(tmp_path / "targets" / f"{name}.jsonl")
        assert {each.task for each in examples} <= {"labels"}


def test_a_missing_file_of_summaries_is_refused(gold: Gold, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.json"):
        build_targets(gold.split, tmp_path / "none.json", tmp_path / "targets")
    assert not (tmp_path / "targets").exists()


def test_another_kind_of_artifact_or_a_damaged_split_is_refused(gold: Gold, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="targets"):
        build_targets(gold.folder, None, tmp_path / "out")
    split = write_split(tmp_path / "split", train=gold.reviews["train"][:2])
    (split / "train.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(ArtifactError):
        build_targets(split, None, tmp_path / "out")
