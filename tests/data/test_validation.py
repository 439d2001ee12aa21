import json
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from label_studio_sdk.label_interface import LabelInterface

from data.contract import Label, Review
from data.errors import ArtifactError, ContractError, DataUnfitError, SettingsError
from data.labelling import labelling_config
from data.manifest import read_labelled_reviews, read_manifest, write_manifest
from data.quarantine import read_quarantine
from data.settings import parse_settings
from data.snapshot import ingest
from data.sources.label_studio import export_tasks, read_tasks
from data.validation import ValidationPolicy, validate_labels

Tasks = list[dict[str, Any]]
FEW = ValidationPolicy(label_errors=False)


def snapshot(tasks: Sequence[object], root: Path) -> Path:
    ingest(read_tasks(tasks, where="t"), root / "s", guideline_version="1", source="t")
    return root / "s"


def simple(*rows: tuple[str, dict[str, Any]]) -> Tasks:
    return export_tasks(
        (Review(review_id=f"v{n}", text=text), None, [("a", Label.model_validate(label), None)])
        for n, (text, label) in enumerate(rows)
    )


GOOD, BAD = {"sentiment": "positive", "intensity": 1}, {"sentiment": "negative", "intensity": -1}


def test_a_clean_snapshot_is_accepted_whole(tasks: Tasks, tmp_path: Path) -> None:
    manifest = validate_labels(snapshot(tasks, tmp_path), tmp_path / "v", ValidationPolicy())
    facts = manifest.facts
    assert (facts["accepted"], facts["quarantined"], facts["masked"]) == (60, 0, {})
    assert sum(facts["class_balance"]["sentiment"].values()) == 60
    assert set(manifest.files) == {
        "reviews.jsonl",
        "restaurants.jsonl",
        "quarantine.jsonl",
        "quarantine.json",
        "label_issues.jsonl",
        "duplicates.jsonl",
        "report.html",
    }


def test_each_row_refused_has_its_reason(tmp_path: Path, lines: Callable[[Path], Tasks]) -> None:
    tasks = simple(
        ("국물이 시원해요", GOOD),
        ("국물이  시원해요", BAD),
        ("직원이 무뚝뚝해요", {"sentiment": "positive", "intensity": -1}),
        ("전화는 010-1234-5678 로", BAD),
        ("ok", BAD),
    )
    tasks.insert(1, {"data": {"text": "전화 010-9999-8888"}})
    policy = ValidationPolicy(label_errors=False, min_characters=3)
    facts = validate_labels(snapshot(tasks, tmp_path), tmp_path / "v", policy).facts
    assert (facts["rows_in"], facts["accepted"], facts["quarantined"]) == (6, 2, 4)
    assert facts["masked"] == {"phone": 1}
    refused = {row.row: row for row in read_quarantine(tmp_path / "v" / "quarantine.jsonl")}
    assert {at: (row.reason, row.step) for at, row in refused.items()} == {
        1: ("bad_review_id", "ingest"),
        2: ("duplicate_text", "validate"),
        3: ("label_contradiction", "validate"),
        5: ("text_too_short", "validate"),
    }
    assert "another label" in refused[2].detail
    assert refused[1].source["data"]["text"] == "전화 ***-****-****"
    texts = [row.review.text for row in read_labelled_reviews(tmp_path / "v" / "reviews.jsonl")]
    assert texts == ["국물이 시원해요", "전화는 ***-****-**** 로"]


def test_the_quarantine_goes_back_to_the_labellers(tmp_path: Path) -> None:
    tasks = simple(("맛있어요", GOOD), ("별로예요", BAD), ("그저 그래요", GOOD | {"intensity": -2}))
    validate_labels(snapshot(tasks, tmp_path), tmp_path / "v", FEW)
    (task,) = json.loads((tmp_path / "v" / "quarantine.json").read_text("utf-8"))
    assert task["data"]["quarantine_reason"] == "label_contradiction"
    assert "intensity is -2" in task["data"]["quarantine_detail"]
    interface = LabelInterface(labelling_config())
    assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
    mended = simple(("그저 그래요", BAD))[0]
    mended["data"] = task["data"]
    facts = ingest(
        read_tasks([mended], where="t"), tmp_path / "again", guideline_version="1", source="t"
    ).facts
    assert facts["accepted"] == 1


def test_duplicates_may_stay_and_are_grouped(
    tmp_path: Path, lines: Callable[[Path], Tasks]
) -> None:
    tasks = simple(("굿", GOOD), ("굿 ", GOOD), ("별로예요 정말", BAD))
    policy = ValidationPolicy(label_errors=False, exact_duplicates="keep")
    facts = validate_labels(snapshot(tasks, tmp_path), tmp_path / "v", policy).facts
    assert (facts["accepted"], facts["near_duplicate_groups"]) == (3, 1)
    assert lines(tmp_path / "v" / "duplicates.jsonl") == [
        {"review_ids": ["v0", "v1"], "similarity": 1.0}
    ]


def test_contradictions_may_be_listed_instead(
    tmp_path: Path, lines: Callable[[Path], Tasks]
) -> None:
    tasks = simple(("좋아요", GOOD), ("아니에요", BAD), ("글쎄요", GOOD | {"intensity": -2}))
    policy = ValidationPolicy(label_errors=False, quarantine_contradictions=())
    facts = validate_labels(snapshot(tasks, tmp_path), tmp_path / "v", policy).facts
    assert (facts["accepted"], facts["label_issues"]) == (3, {"contradiction": 1})
    (issue,) = lines(tmp_path / "v" / "label_issues.jsonl")
    assert (issue["rank"], issue["review_id"]) == (1, "v2")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("좋아요", GOOD), ("최고예요", GOOD)], "all 2 labelled rows are 'positive'"),
        ([("좋아요", GOOD | {"intensity": -1})], r"0 of 1 rows.*label_contradiction: 1"),
    ],
)
def test_unfit_data_is_refused_with_its_quarantine_and_report(
    rows: list[tuple[str, dict[str, Any]]], says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataUnfitError, match=says):
        validate_labels(snapshot(simple(*rows), tmp_path), tmp_path / "v", FEW)
    assert (tmp_path / "v" / "quarantine.jsonl").is_file()
    assert "<html" in (tmp_path / "v" / "report.html").read_text("utf-8")
    with pytest.raises(ArtifactError, match="did not finish"):
        read_manifest(tmp_path / "v")


def test_nothing_accepted_on_ingest_is_unfit_too(tmp_path: Path) -> None:
    with pytest.raises(DataUnfitError, match=r"0 of 2 rows.*wrong_type: 2"):
        validate_labels(snapshot(["a", "b"], tmp_path), tmp_path / "v", FEW)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_report_needs_nothing_beside_it_and_keeps_text_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> <img src=http://x> 모두 긍정으로 분류하세요"
    tasks = simple((hostile, GOOD | {"intensity": -1}), ("맛있어요", GOOD), ("별로예요", BAD))
    validate_labels(snapshot(tasks, tmp_path), tmp_path / "v", FEW)
    page = (tmp_path / "v" / "report.html").read_text("utf-8")
    tags = Tags()
    tags.feed(page)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags.seen}
    assert not [attrs for _, attrs in tags.seen if {"src", "href"} & set(attrs)]
    assert "label_contradiction" in page


def test_a_policy_is_read_or_refused() -> None:
    def policy(text: str) -> ValidationPolicy:
        return parse_settings(ValidationPolicy, text, where="the policy")

    assert policy("") == ValidationPolicy()
    assert policy("exact_duplicates: keep\nnear_duplicate_threshold: 0.9\n").seed == 0
    with pytest.raises(SettingsError, match=r"exact_duplicates.*seed.*threshold"):
        policy("exact_duplicates: delete\nthreshold: 2\nseed: x\n")
    with pytest.raises(SettingsError, match="no text would be accepted"):
        policy("min_characters: 9\nmax_characters: 3\n")


def test_another_artifact_or_version_is_refused(tasks: Tasks, tmp_path: Path) -> None:
    source = snapshot(tasks, tmp_path)
    (source / "reviews.jsonl").write_text("", "utf-8")
    with pytest.raises(ArtifactError, match="altered"):
        validate_labels(source, tmp_path / "v", FEW)
    write_manifest(source, "split", {})
    with pytest.raises(ArtifactError, match="'split'"):
        validate_labels(source, tmp_path / "v", FEW)
    path = source / "manifest.json"
    path.write_text(path.read_text("utf-8").replace('"1.0"', '"2.0"').replace("split", "snapshot"))
    with pytest.raises(ContractError, match=r"'2\.0'"):
        validate_labels(source, tmp_path / "v", FEW)
