import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.contract import Evidence, Label, LabelledReview, RestaurantSummary, Review
from data.errors import SourceError
from data.quarantine import RowError
from data.summaries import Summaries, read_summaries, verify_summary

Change = Callable[[dict[str, Any]], object]


def a_review(name: str, text: str, restaurant: str, **aspects: str) -> LabelledReview:
    evidence = tuple(
        Evidence.model_validate(
            {
                "aspect": aspect,
                "polarity": "positive" if state == "mixed" else state,
                "start": 0,
                "end": len(text),
                "text": text,
            }
        )
        for aspect, state in aspects.items()
    )
    label = Label.model_validate(
        {
            "sentiment": "neutral",
            "aspects": aspects,
            "evidence": [each.model_dump() for each in evidence],
        }
    )
    return LabelledReview(
        review=Review(review_id=name, text=text, restaurant_id=restaurant), label=label
    )


REVIEWS = {
    row.review.review_id: row
    for row in (
        a_review("r1", "국물이 진하고 고기가 부드럽다", "s1", food="positive"),
        a_review("r2", "국물은 좋은데 김치가 시다", "s1", food="mixed"),
        a_review("r3", "직원이 무뚝뚝하다", "s1", service="negative"),
        a_review("r4", "국물이 진하고 싸다", "s2", food="positive", price="positive"),
        a_review("r5", "주차 됩니다", "s3"),
    )
}


def citation(review: str, span: str) -> dict[str, str]:
    return {"review_id": review, "span": span}


def a_summary() -> dict[str, Any]:
    return {
        "restaurant_id": "s1",
        "summary": {
            "overall": "국물이 좋은 집이다.",
            "aspects": {
                "food": {
                    "polarity": "mixed",
                    "sentence": "국물은 좋고 김치는 시다.",
                    "bullets": [
                        {
                            "text": "국물이 진하다",
                            "polarity": "positive",
                            "evidence": [citation("r1", "국물이 진하고")],
                        },
                        {
                            "text": "김치가 시다",
                            "polarity": "negative",
                            "evidence": [citation("r2", "김치가 시다")],
                        },
                    ],
                }
            },
        },
        "strengths": {
            "representative": [
                {
                    "aspect": "food",
                    "claim": "오래 끓여 진한 국물이 좋다",
                    "evidence": [citation("r1", "국물이 진하고"), citation("r2", "국물은 좋은데")],
                }
            ],
            "distinct": [
                {
                    "aspect": "food",
                    "claim": "부드럽게 삶아 낸 고기가 좋다",
                    "evidence": [citation("r1", "고기가 부드럽다")],
                }
            ],
        },
    }


@pytest.fixture
def read(tmp_path: Path) -> Callable[[object], Summaries]:
    """Writes a file of summaries, and reads it."""

    def written(content: object) -> Summaries:
        path = tmp_path / "summaries.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return read_summaries(path, REVIEWS)

    return written


Reader = Callable[[object], Summaries]


def bullet(row: dict[str, Any], number: int) -> dict[str, Any]:
    found: dict[str, Any] = row["summary"]["aspects"]["food"]["bullets"][number]
    return found


def strength(row: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = row["strengths"][kind][0]
    return found


def test_a_true_summary_is_accepted(read: Reader) -> None:
    found = read([a_summary()])
    assert found.accepted == {"s1": RestaurantSummary.model_validate(a_summary())}
    assert found.rows == {"s1": 0}
    assert found.quarantined == []


BREACHES: list[tuple[Change, str, str]] = [
    (
        lambda row: bullet(row, 0)["evidence"].append(citation("r9", "국물")),
        "unknown_review",
        "bullets[0] cites review 'r9', which 's1' has not among these reviews; cite one of its own",
    ),
    (
        lambda row: bullet(row, 0)["evidence"].append(citation("r4", "국물이 진하고")),
        "unknown_review",
        "aspects.food.bullets[0] cites review 'r4', which 's1' has not",
    ),
    (
        lambda row: bullet(row, 1)["evidence"][0].update(span="김치가  시다"),
        "span_not_in_text",
        "cites '김치가  시다', which is not verbatim in review 'r2'; copy it letter by letter",
    ),
    (
        lambda row: bullet(row, 1)["evidence"].append(citation("r1", "고기가 부드럽다")),
        "label_contradiction",
        "aspects.food.bullets[1] cites review 'r1' for food:negative, its label says 'positive'",
    ),
    (
        lambda row: bullet(row, 1)["evidence"].append(citation("r3", "무뚝뚝하다")),
        "label_contradiction",
        "cites review 'r3' for food:negative, its label says None",
    ),
    (
        lambda row: strength(row, "representative")["evidence"].pop(),
        "too_little_support",
        "strengths.representative[0] cites only ['r1']; it needs 2 different reviews",
    ),
    (
        lambda row: strength(row, "representative").update(
            evidence=[citation("r1", "국물이 진하고"), citation("r1", "고기가 부드럽다")]
        ),
        "too_little_support",
        "strengths.representative[0] cites only ['r1']",
    ),
    (
        lambda row: strength(row, "distinct").update(aspect="service"),
        "label_contradiction",
        "strengths.distinct[0] cites review 'r1' for service:positive, its label says None",
    ),
    (
        lambda row: strength(row, "distinct").update(evidence=[citation("r3", "무뚝뚝하다")]),
        "label_contradiction",
        "strengths.distinct[0] cites review 'r3' for food:positive",
    ),
    (
        lambda row: row["summary"]["aspects"].update(
            price={"polarity": "positive", "sentence": "싸다.", "bullets": []}
        ),
        "label_contradiction",
        "aspects.price is summarised, no review of 's1' is labelled with it",
    ),
    (
        lambda row: row.update(restaurant_id="s9"),
        "bad_restaurant",
        "restaurant 's9' has no reviews here; correct the id, or leave the row out",
    ),
    (
        lambda row: row["summary"]["aspects"]["food"].update(polarity="positive"),
        "label_contradiction",
        "polarity is 'positive', the bullets make it 'mixed'",
    ),
    (lambda row: row.update(restaurant_id="two words"), "bad_restaurant", "'two words'"),
    (lambda row: row["summary"].pop("overall"), "label_outside_set", "summary.overall"),
    (lambda row: row["summary"].update(overall=7), "wrong_type", "summary.overall is 7"),
    (
        lambda row: row["summary"].update(overall="가" * 401),
        "label_outside_set",
        "(401 characters): String should have at most 400 characters",
    ),
    (lambda row: row.update(stars=5), "label_outside_set", "stars is 5"),
    (lambda row: bullet(row, 0).update(evidence=[]), "label_outside_set", "bullets.0.evidence"),
    (
        lambda row: bullet(row, 0).update(polarity="mixed"),
        "label_outside_set",
        "polarity is 'mixed'",
    ),
    (
        lambda row: row["summary"]["aspects"].update(parking=row["summary"]["aspects"].pop("food")),
        "label_outside_set",
        "parking",
    ),
    (
        lambda row: row["strengths"].update(distinct=row["strengths"]["distinct"] * 4),
        "label_outside_set",
        "strengths.distinct",
    ),
]


@pytest.mark.parametrize(("change", "reason", "message"), BREACHES)
def test_a_summary_that_is_not_true_is_quarantined_with_its_reason(
    change: Change, reason: str, message: str, read: Reader
) -> None:
    row = a_summary()
    change(row)
    found = read([row])
    assert found.accepted == {}
    (quarantined,) = found.quarantined
    assert (quarantined.row, quarantined.reason, quarantined.step) == (0, reason, "targets")
    assert message in quarantined.detail
    assert quarantined.source == row


def test_a_mixed_review_may_be_cited_for_either_side() -> None:
    row = a_summary()
    bullet(row, 0)["evidence"].append(citation("r2", "국물은 좋은데"))
    verify_summary(RestaurantSummary.model_validate(row), REVIEWS)
    bullet(row, 0)["polarity"] = "neutral"
    row["summary"]["aspects"]["food"]["polarity"] = "negative"
    with pytest.raises(RowError, match="food:neutral, its label says 'positive'"):
        verify_summary(RestaurantSummary.model_validate(row), REVIEWS)


def test_a_restaurant_of_which_nothing_is_said_may_be_summarised_so(read: Reader) -> None:
    empty = {
        "restaurant_id": "s3",
        "summary": {"overall": "주차가 된다는 말뿐이다.", "aspects": {}},
        "strengths": {"representative": [], "distinct": []},
    }
    assert list(read([empty]).accepted) == ["s3"]


def test_rows_in_are_accepted_or_quarantined_each_with_its_row(read: Reader) -> None:
    false, other = a_summary(), a_summary()
    bullet(false, 0)["evidence"][0]["review_id"] = "r9"
    other["summary"]["overall"] = "다른 글이다."
    rows = [false, a_summary(), 5, None, other, ["s1"], {}]
    found = read(rows)
    assert found.rows == {"s1": 1}
    assert [(each.row, each.reason) for each in found.quarantined] == [
        (0, "unknown_review"),
        (2, "wrong_type"),
        (3, "wrong_type"),
        (4, "duplicate_restaurant"),
        (5, "wrong_type"),
        (6, "bad_restaurant"),
    ]
    assert len(rows) == len(found.accepted) + len(found.quarantined)
    details = {each.row: each.detail for each in found.quarantined}
    assert "'s1' is summarised in row 1 too, and the first stands" in details[4]
    assert details[2].startswith("the row is 5, expected an object")
    assert found.accepted["s1"].summary.overall == "국물이 좋은 집이다."


def test_lines_that_are_not_json_are_quarantined_and_the_others_are_read(read: Reader) -> None:
    good = json.dumps(a_summary(), ensure_ascii=False).encode()
    broken = good.replace("국물".encode(), b"\xea\xb5", 1)
    found = read(b"\xef\xbb\xbf{\n\n" + broken + b"\n" + good + b"\r\n \n")
    assert list(found.accepted) == ["s1"]
    assert [each.reason for each in found.quarantined] == ["bad_row", "bad_row"]
    assert "line 1 is not JSON" in found.quarantined[0].detail
    assert "line 3 is not JSON" in found.quarantined[1].detail
    assert "UTF-8" in found.quarantined[1].detail


def test_a_list_may_begin_with_a_byte_order_mark(read: Reader) -> None:
    assert read(b"\xef\xbb\xbf\n" + json.dumps([a_summary()]).encode()).accepted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"restaurant_id": "s1"', "is not a JSON list"),
        (b'["\xea\xb5"]', "UTF-8"),
        (b"[1] [2]", "is not a JSON list"),
        (b"[]", "holds no summaries"),
        (b" \n", "holds no summaries"),
        (b"", "holds no summaries; write some, or name no file"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused(
    content: bytes, message: str, read: Reader
) -> None:
    with pytest.raises(SourceError, match=message):
        read(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(SourceError, match=r"cannot be read: .*; name a JSON or JSONL file"):
            read_summaries(path, REVIEWS)
