from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.contract import Label, LabelledReview, Review
from data.errors import ArtifactError, DataUnfitError, LeakageError, SettingsError
from data.leakage import read_parts
from data.manifest import write_labelled_reviews
from data.snapshot import ingest
from data.sources.label_studio import export_tasks, read_tasks
from data.splits import check_leakage, split_dataset
from data.validation import ValidationPolicy, validate_labels

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
WORDS = "국물 고기 반찬 직원 가격 분위기 주차 대기 청소 양념 냉면 만두 곱창 초밥 김치 두부".split()  # noqa: SIM905  # read at a glance
Row = tuple[str, str | None, str]


def rows_of(count: int, restaurants: int) -> list[Row]:
    sentiments = ("negative", "neutral", "positive", "positive")
    return [
        (
            f"{WORDS[n % 16]}{n * n * 31337 % 99991} {WORDS[n * 7 % 13]}{n * 7919 % 1009} 이야기",
            f"r{n % restaurants}" if restaurants else None,
            sentiments[n % 4 if n % 5 else 0],
        )
        for n in range(count)
    ]


def validated(rows: Sequence[Row], root: Path) -> Path:
    tasks = export_tasks(
        (
            Review(review_id=f"v{n}", text=text, restaurant_id=place),
            None,
            [("a", Label(sentiment=sentiment), None)],
        )
        for n, (text, place, sentiment) in enumerate(rows)
    )
    ingest(read_tasks(tasks, where="t"), root / "s", guideline_version="1", source="t")
    policy = ValidationPolicy(exact_duplicates="keep", label_errors=False)
    validate_labels(root / "s", root / "v", policy)
    return root / "v"


def facts_of(
    source: Path, out: Path, group_by: Any = "restaurant", seed: int = 1
) -> dict[str, Any]:
    return split_dataset(source, out, FRACTIONS, seed, group_by).facts


@pytest.mark.parametrize(("group_by", "restaurants"), [("restaurant", 40), ("none", 0)])
def test_shares_and_classes_are_near_what_was_asked(
    group_by: str, restaurants: int, tmp_path: Path
) -> None:
    facts = facts_of(validated(rows_of(400, restaurants), tmp_path), tmp_path / "out", group_by)
    assert sum(facts["rows"].values()) == 400
    for part, share in FRACTIONS.items():
        assert facts["rows"][part] == pytest.approx(400 * share, abs=12)
        balance = facts["class_balance"][part]["sentiment"]
        assert balance["positive"] / facts["rows"][part] == pytest.approx(0.4, abs=0.08)
    check_leakage(tmp_path / "out")


def test_the_seed_decides(tmp_path: Path) -> None:
    source = validated(rows_of(200, 40), tmp_path)
    names = []
    for number, seed in enumerate((1, 1, 2)):
        facts_of(source, tmp_path / str(number), seed=seed)
        names.append([r.review.review_id for r in read_parts(tmp_path / str(number))["test"]])
    assert names[0] == names[1] != names[2]


def test_near_duplicates_tie_restaurants(tmp_path: Path) -> None:
    rows = rows_of(200, 40)
    same = "육수가 깊고 면발이 쫄깃해서 해마다 찾아오는 집"
    rows[0] = (same, "r0", "positive")
    rows[1] = (same + "!", "r1", "positive")
    facts = facts_of(validated(rows, tmp_path), tmp_path / "out")
    assert facts["duplicates_tie_restaurants"] is True
    assert facts["left_out"] == 0
    sides = {
        row.review.restaurant_id: part
        for part, members in read_parts(tmp_path / "out").items()
        for row in members
    }
    assert sides["r0"] == sides["r1"]


def test_ties_that_would_lump_everything_leave_duplicates_out(tmp_path: Path) -> None:
    rows = rows_of(200, 40)
    for n in range(40):
        rows[n] = ("맛있어요 잘 먹었습니다", f"r{n}", "positive")
    facts = facts_of(validated(rows, tmp_path), tmp_path / "out")
    assert facts["duplicates_tie_restaurants"] is False
    assert 0 < facts["left_out"] < 40
    assert sum(facts["rows"].values()) + facts["left_out"] == 200
    check_leakage(tmp_path / "out")


def row(name: str, text: str, place: str | None = None) -> LabelledReview:
    review = Review(review_id=name, text=text, restaurant_id=place)
    return LabelledReview(review=review, label=Label(sentiment="neutral"))


LONG = "국물이 진하고 고기가 부드러워서 부모님을 모시고 다시 오고 싶은 집"


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        (row("a", "하나"), row("a", "둘"), "review_id 'a'"),
        (row("a", "하나", "r"), row("b", "둘", "r"), "restaurant_id 'r'"),
        (row("a", "맛  집"), row("b", "맛 집 "), "text '맛 집'"),
        (row("a", LONG), row("b", LONG + "!!"), "near-duplicates"),
    ],
)
def test_a_broken_split_is_found(
    train: LabelledReview, test: LabelledReview, says: str, tmp_path: Path
) -> None:
    others = [row("x", "전혀 다른 이야기", "r7"), row("y", "이것도 다른 말", "r8")]
    parts = {"train": [others[0], train], "validation": [others[1]], "test": [test]}
    with pytest.raises(LeakageError, match=says):
        check_leakage(parts)
    for name, members in parts.items():
        write_labelled_reviews(tmp_path / f"{name}.jsonl", members)
    with pytest.raises(LeakageError, match=says):
        check_leakage(tmp_path)
    check_leakage({"train": [others[0], train], "validation": [others[1]], "test": []})


def test_a_split_broken_on_purpose_is_found(tmp_path: Path) -> None:
    facts_of(validated(rows_of(200, 40), tmp_path), tmp_path / "out")
    parts = read_parts(tmp_path / "out")
    check_leakage(parts)
    parts["test"].append(parts["train"].pop())
    with pytest.raises(LeakageError, match="restaurant_id"):
        check_leakage(parts)
    (tmp_path / "out" / "test.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"test\.jsonl"):
        check_leakage(tmp_path / "out")


def test_settings_and_data_that_cannot_be_split(tmp_path: Path) -> None:
    source = validated(rows_of(40, 2), tmp_path)
    with pytest.raises(DataUnfitError, match="2 groups cannot fill 3 parts"):
        facts_of(source, tmp_path / "out")
    for fractions in ({"train": 0.5}, {"train": 1.0, "dev": 0.0}, {"validation": 0.5, "test": 0.5}):
        with pytest.raises(SettingsError, match="fractions"):
            split_dataset(source, tmp_path / "out", fractions, 1, "restaurant")
    with pytest.raises(SettingsError, match="'region'"):
        facts_of(source, tmp_path / "out", "region")
    halves = split_dataset(source, tmp_path / "out", {"train": 0.5, "test": 0.5}, 1, "restaurant")
    assert halves.facts["rows"] == {"train": 20, "validation": 0, "test": 20}
