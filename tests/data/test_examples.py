from datetime import date
from pathlib import Path
from typing import Any

import pytest

from data.answers import MAX_EVIDENCE, LabelsAnswer, label_of, read_answer
from data.clauses import split_clauses
from data.contract import Label, LabelledReview, Review
from data.errors import ArtifactError
from data.examples import labels_example, points_of, read_examples, write_examples
from data.prompts import Point, labels_prompt
from data.quarantine import RowError

TEXT = "국물은 진한데 김치가 너무 시다\n직원이 친절하고 값도 아주 싸요"


def evidence(text: str, span: str, aspect: str, polarity: str) -> dict[str, Any]:
    start = text.index(span)
    return {
        "aspect": aspect,
        "polarity": polarity,
        "start": start,
        "end": start + len(span),
        "text": span,
    }


def labelled(
    text: str = TEXT, name: str = "r1", on: date | None = None, **label: Any
) -> LabelledReview:
    whole: dict[str, Any] = {
        "sentiment": "neutral",
        "intensity": 0,
        "emotions": ["disappointment", "joy"],
        "aspects": {"service": "positive", "food": "mixed"},
        "evidence": [
            evidence(TEXT, "친절하고", "service", "positive"),
            evidence(TEXT, "김치가 너무 시다", "food", "negative"),
            evidence(TEXT, "진한데", "food", "positive"),
        ],
    }
    return LabelledReview(
        review=Review(review_id=name, text=text, restaurant_id="s1", written_on=on),
        label=Label.model_validate(whole | label),
    )


def refused(row: LabelledReview) -> RowError:
    with pytest.raises(RowError) as error:
        labels_example(row)
    return error.value


def test_a_label_is_taught_by_clause_in_the_order_of_the_text() -> None:
    example = labels_example(labelled())
    assert (example.task, example.about, example.aspect) == ("labels", "r1", None)
    assert example.numbered == 4
    assert example.messages == labels_prompt(split_clauses(TEXT))
    assert example.answer == (
        '{"evidence":[{"clause":"#1","aspect":"food","polarity":"positive"},'
        '{"clause":"#2","aspect":"food","polarity":"negative"},'
        '{"clause":"#3","aspect":"service","polarity":"positive"}],'
        '"aspects":{"food":"mixed","service":"positive","atmosphere":"absent","price":"absent",'
        '"hygiene":"absent","access":"absent"},"intensity":0,"sentiment":"neutral",'
        '"emotions":["joy","disappointment"]}'
    )


def test_what_is_taught_turns_back_into_the_label() -> None:
    row = labelled()
    reading = read_answer(LabelsAnswer, labels_example(row).answer, 4)
    assert reading.answer is not None
    label = label_of(reading.answer, split_clauses(TEXT))
    for task in ("sentiment", "intensity", "emotions", "aspects"):
        assert getattr(label, task) == getattr(row.label, task)
    assert [each.text for each in label.evidence] == [
        "국물은 진한데",
        "김치가 너무 시다",
        "직원이 친절하고",
    ]


def test_a_review_that_says_nothing_is_taught_as_such() -> None:
    row = labelled("주소를 적어 둡니다", aspects={}, evidence=[], emotions=[])
    assert labels_example(row).answer.startswith('{"evidence":[],"aspects":{"food":"absent"')


@pytest.mark.parametrize("task", ["sentiment", "intensity", "emotions"])
def test_a_label_that_lacks_a_task_is_incomplete(task: str) -> None:
    error = refused(labelled(**{task: None}))
    assert error.reason == "incomplete_label"
    assert str(error).startswith("review 'r1' lacks sentiment, intensity or emotions; label it")


def test_unlabelled_aspects_are_not_taught_as_absent() -> None:
    error = refused(labelled(aspects=None, evidence=[]))
    assert (error.reason, "lacks aspects;" in str(error)) == ("incomplete_label", True)


def test_an_aspect_without_evidence_is_not_taught_as_unsaid() -> None:
    error = refused(labelled(aspects={"food": "mixed", "service": "positive", "price": "positive"}))
    assert error.reason == "incomplete_label"
    assert "review 'r1' lacks evidence of price;" in str(error)


def test_more_evidence_than_an_answer_holds_is_refused_not_cut() -> None:
    sentences = [f"요리 {number:02d}번은 맛있어요. " for number in range(MAX_EVIDENCE + 1)]
    text = "".join(sentences)
    spans = [evidence(text, each.strip(), "food", "positive") for each in sentences]
    aspects = {"food": "positive"}
    error = refused(labelled(text, aspects=aspects, evidence=spans))
    assert error.reason == "target_too_long"
    assert f"has {MAX_EVIDENCE + 1} clauses of evidence, an answer holds {MAX_EVIDENCE}" in str(
        error
    )
    assert labels_example(labelled(text, aspects=aspects, evidence=spans[1:]))


def test_a_blank_review_is_refused() -> None:
    error = refused(labelled(" \n ", aspects={}, evidence=[]))
    assert (error.reason, str(error)) == ("missing_text", "review 'r1' is blank; leave it out")


def test_points_stand_oldest_first_and_as_the_answers_name_them() -> None:
    old, new = date(2025, 1, 2), date(2025, 11, 1)
    rows = [labelled(name="b"), labelled(name="c", on=new), labelled(name="a", on=old)]
    points = points_of(rows)
    assert [point.review_id for point in points] == ["a"] * 3 + ["c"] * 3 + ["b"] * 3
    assert points[:3] == [
        Point("a", "국물은 진한데", "food", "positive"),
        Point("a", "김치가 너무 시다", "food", "negative"),
        Point("a", "직원이 친절하고", "service", "positive"),
    ]


def test_a_clause_of_two_aspects_or_polarities_is_two_points() -> None:
    text = "값싸고 맛은 별로"
    row = labelled(
        text,
        aspects={"food": "mixed", "price": "positive"},
        evidence=[
            evidence(text, "값싸고", "price", "positive"),
            evidence(text, "맛은", "food", "positive"),
            evidence(text, "맛은 별로", "food", "negative"),
            evidence(text, "별로", "food", "negative"),
        ],
    )
    assert [(point.aspect, point.polarity) for point in points_of([row])] == [
        ("food", "negative"),
        ("food", "positive"),
        ("price", "positive"),
    ]


def test_examples_are_read_as_they_were_written(tmp_path: Path) -> None:
    examples = [labels_example(labelled()), labels_example(labelled(name="r2"))]
    write_examples(tmp_path / "train.jsonl", examples)
    assert read_examples(tmp_path / "train.jsonl") == examples
    write_examples(tmp_path / "train.jsonl", [])
    assert read_examples(tmp_path / "train.jsonl") == []


@pytest.mark.parametrize("line", ["{}", "not JSON", '{"task":"poem"}'])
def test_what_is_no_example_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"train\.jsonl' does not hold examples"):
        read_examples(path)
    with pytest.raises(ArtifactError, match="build the targets again"):
        read_examples(tmp_path / "none.jsonl")
