from typing import Any

import pytest

from data.answers import AspectAnswer, OverallAnswer, StrengthsAnswer, bullet_of, read_answer
from data.contract import Evidence, Label, LabelledReview, RestaurantSummary, Review
from data.examples import Example, points_of
from data.quarantine import RowError
from data.summary_targets import summary_examples

FIRST = "국물이 유명하다더니 김치가 너무 시다. 국물이 진한데 다음에 또 갈래요"
SECOND = "직원이 친절하고 국물이 진해요"


def labelled(name: str, text: str, *spans: tuple[str, str, str]) -> LabelledReview:
    evidence = tuple(
        Evidence.model_validate(
            {
                "aspect": aspect,
                "polarity": polarity,
                "start": text.rindex(span),
                "end": text.rindex(span) + len(span),
                "text": span,
            }
        )
        for aspect, polarity, span in spans
    )
    return LabelledReview(
        review=Review(review_id=name, text=text, restaurant_id="s1"),
        label=Label(sentiment="neutral", evidence=evidence),
    )


REVIEWS = [
    labelled(
        "r1", FIRST, ("food", "positive", "국물이 진한데"), ("food", "negative", "김치가 너무 시다")
    ),
    labelled(
        "r2", SECOND, ("service", "positive", "친절하고"), ("food", "positive", "국물이 진해요")
    ),
]


def cite(*citations: tuple[str, str]) -> list[dict[str, str]]:
    return [{"review_id": review, "span": span} for review, span in citations]


def bullet(polarity: str, *citations: tuple[str, str]) -> dict[str, Any]:
    return {"text": f"요점 {polarity}", "polarity": polarity, "evidence": cite(*citations)}


def summary(*bullets: dict[str, Any], **parts: Any) -> RestaurantSummary:
    polarities = {each["polarity"] for each in bullets}
    food = {
        "polarity": "mixed" if len(polarities) > 1 else (polarities or {"neutral"}).pop(),
        "sentence": "국물은 좋다.",
        "bullets": bullets,
    }
    return RestaurantSummary.model_validate(
        {
            "restaurant_id": "s1",
            "summary": {"overall": "국물이 좋다.", "aspects": {"food": food}},
            "strengths": {"representative": [], "distinct": []},
        }
        | parts
    )


def aspect_answer(*bullets: dict[str, Any]) -> tuple[Example, AspectAnswer]:
    example = summary_examples(summary(*bullets), REVIEWS)[0]
    reading = read_answer(AspectAnswer, example.answer, example.numbered)
    assert reading.obeyed
    assert reading.answer is not None
    return example, reading.answer


def refused(written: RestaurantSummary) -> RowError:
    with pytest.raises(RowError) as error:
        summary_examples(written, REVIEWS)
    return error.value


def test_citations_are_taught_as_the_lines_that_they_stand_in() -> None:
    example, answer = aspect_answer(
        bullet("positive", ("r2", "진해요"), ("r1", "진한데 다음에")),
        bullet("negative", ("r1", "시다")),
    )
    assert (example.task, example.about, example.aspect, example.numbered) == (
        "aspect",
        "s1",
        "food",
        3,
    )
    assert example.messages[1]["content"].endswith(
        "\n부정 국물이 유명하다더니 김치가 너무 시다. #1\n"
        "긍정 국물이 진한데 #2\n긍정 국물이 진해요 #3"
    )
    assert [each.evidence for each in answer.bullets] == [["#2", "#3"], ["#1"]]
    food = [point for point in points_of(REVIEWS) if point.aspect == "food"]
    spans = [citation.span for citation in bullet_of(answer.bullets[0], food).evidence]
    assert spans == ["국물이 진한데", "국물이 진해요"]


def test_words_that_stand_twice_are_found_where_they_are_labelled() -> None:
    _, answer = aspect_answer(bullet("positive", ("r1", "국물이")))
    assert answer.bullets[0].evidence == ["#2"]


def test_a_citation_over_two_clauses_is_taught_as_both() -> None:
    rows = [
        labelled(
            "r1",
            "면이 쫄깃하고 고기가 연해요",
            ("food", "positive", "면이 쫄깃하고"),
            ("food", "positive", "고기가 연해요"),
        )
    ]
    written = summary(bullet("positive", ("r1", "쫄깃하고 고기가")))
    example = summary_examples(written, rows)[0]
    assert '"evidence":["#1","#2"]' in example.answer


def test_a_whole_clause_is_its_own_line_though_its_words_stand_in_another() -> None:
    rows = [
        labelled(
            "r1",
            "국물이 아주 진하고\n국물이 아주 진하고 달다",
            ("food", "positive", "국물이 아주 진하고 달다"),
        )
    ]
    rows[0] = rows[0].model_copy(
        update={
            "label": Label(
                sentiment="positive",
                evidence=(
                    *rows[0].label.evidence,
                    Evidence(
                        aspect="food",
                        polarity="positive",
                        start=0,
                        end=10,
                        text="국물이 아주 진하고",
                    ),
                ),
            )
        }
    )
    assert [point.span for point in points_of(rows)] == [
        "국물이 아주 진하고",
        "국물이 아주 진하고 달다",
    ]
    example = summary_examples(summary(bullet("positive", ("r1", "국물이 아주 진하고"))), rows)[0]
    assert '"evidence":["#1"]' in example.answer


@pytest.mark.parametrize(
    ("polarity", "span"),
    [
        ("positive", "또 갈래요"),
        ("positive", " 다음에"),
        ("negative", "국물이 진한데"),
        ("neutral", "시다"),
    ],
)
def test_a_citation_of_no_labelled_clause_is_refused(polarity: str, span: str) -> None:
    error = refused(summary(bullet(polarity, ("r1", span))))
    assert error.reason == "label_contradiction"
    assert f"'r1' is cited for food:{polarity} with {span!r}, where its label marks nothing" in str(
        error
    )


def test_more_lines_than_an_answer_cites_are_refused() -> None:
    text = "".join(f"요리 {number}번은 맛있어요. " for number in range(7))
    spans = [("food", "positive", f"요리 {number}번은 맛있어요.") for number in range(7)]
    written = summary(bullet("positive", ("r1", text.strip()[:80]), ("r1", text.strip()[60:])))
    with pytest.raises(RowError) as error:
        summary_examples(written, [labelled("r1", text, *spans)])
    assert error.value.reason == "target_too_long"
    assert "2 citations of food:positive" in str(error.value)
    assert "stand in 7 clauses, an answer cites 6" in str(error.value)


def test_an_aspect_without_bullets_is_refused() -> None:
    error = refused(summary())
    assert error.reason == "too_little_support"
    assert "aspects.food of 's1' has no bullet" in str(error)


def test_a_summary_of_nothing_is_refused() -> None:
    error = refused(summary(summary={"overall": "모르겠다.", "aspects": {}}))
    assert error.reason == "too_little_support"
    assert "the summary of 's1' is of no aspect" in str(error)


def test_overall_is_written_from_the_aspects_in_the_order_of_the_contract() -> None:
    service = {
        "polarity": "positive",
        "sentence": "친절하다.",
        "bullets": [bullet("positive", ("r2", "친절하고"))],
    }
    food = summary(bullet("negative", ("r1", "시다"))).summary.aspects["food"].model_dump()
    aspects = {"overall": "친절하나 김치가 시다.", "aspects": {"service": service, "food": food}}
    examples = summary_examples(summary(summary=aspects), REVIEWS)
    assert [each.task for each in examples] == ["aspect", "aspect", "overall", "strengths"]
    assert [each.aspect for each in examples] == ["food", "service", None, None]
    assert (
        examples[2]
        .messages[1]["content"]
        .endswith("\n음식 부정: 국물은 좋다.\n서비스 긍정: 친절하다.")
    )
    assert read_answer(OverallAnswer, examples[2].answer, 0).obeyed


def test_strengths_are_taught_most_reviews_first_and_all_of_them() -> None:
    def strength(claim: str, *citations: tuple[str, str]) -> dict[str, Any]:
        return {"aspect": "food", "claim": claim, "evidence": cite(*citations)}

    one = [strength(f"대표 {n}", ("r1", "국물이 진한데")) for n in range(3)]
    both = strength("대표 둘", ("r1", "국물이 진한데"), ("r2", "국물이 진해요"))
    distinct = [strength(f"특징 {n}", ("r2", "국물이 진해요")) for n in range(3)]
    written = summary(
        bullet("positive", ("r2", "진해요")),
        strengths={"representative": [*one, both], "distinct": distinct},
    )
    example = summary_examples(written, REVIEWS)[-1]
    assert example.task == "strengths"
    assert example.numbered == 3
    answer = read_answer(StrengthsAnswer, example.answer, 3).answer
    assert answer is not None
    assert [each.claim for each in answer.strengths] == [
        "대표 둘",
        *(f"대표 {n}" for n in range(3)),
        *(f"특징 {n}" for n in range(3)),
    ]
    lines = example.messages[1]["content"].splitlines()[-3:]
    assert lines == ["음식 국물이 진한데 #1", "서비스 직원이 친절하고 #2", "음식 국물이 진해요 #3"]
    assert [each.evidence for each in answer.strengths[:2]] == [["#1", "#3"], ["#1"]]


def test_no_praise_is_taught_as_no_strength_and_no_praise_at_all_is_not_asked() -> None:
    written = summary(bullet("negative", ("r1", "시다")))
    assert summary_examples(written, REVIEWS)[-1].answer == '{"strengths":[]}'
    blamed = [labelled("r1", FIRST, ("food", "negative", "김치가 너무 시다"))]
    assert [each.task for each in summary_examples(written, blamed)] == ["aspect", "overall"]
