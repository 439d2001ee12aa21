"""A model's answers, held against the clauses that they cite."""

import json
from typing import Any

import pytest

from data.contract import Aspect, Citation, Polarity
from data.prompts import Point
from serving.summary_answers import Reader, support

TEXTS = {
    "r1": "국물이 진해요. 김치는 별로예요",
    "r2": "고기가 부드러워요. 사장님이 친절해요",
    "r3": "아홉 시에 열어요",
}


def point(review_id: str, span: str, polarity: Polarity, aspect: Aspect = "food") -> Point:
    return Point(review_id, span, aspect, polarity)


POINTS = [
    point("r1", "국물이 진해요.", "positive"),
    point("r1", "김치는 별로예요", "negative"),
    point("r2", "고기가 부드러워요.", "positive"),
    point("r3", "아홉 시에 열어요", "neutral"),
]
PRAISED = [POINTS[0], POINTS[2], point("r2", "사장님이 친절해요", "positive", "service")]


def bullet(text: str, polarity: str, *numbers: int) -> dict[str, Any]:
    return {"evidence": [f"#{n}" for n in numbers], "polarity": polarity, "text": text}


def strength(claim: str, aspect: str, *numbers: int) -> dict[str, Any]:
    return {"aspect": aspect, "evidence": [f"#{n}" for n in numbers], "claim": claim}


def aspect_answer(*bullets: dict[str, Any], sentence: str = "좋다는 말이 많다") -> str:
    return json.dumps({"bullets": bullets, "sentence": sentence})


@pytest.fixture
def reader() -> Reader:
    return Reader(TEXTS)


def test_a_sound_answer_is_taken_as_it_is(reader):
    said = aspect_answer(bullet("국물과 고기", "positive", 1, 3), bullet("김치", "negative", 2))
    summary = reader.aspect("food", said, POINTS)
    assert summary is not None
    assert summary.polarity == "mixed"
    assert [each.review_id for each in summary.bullets[0].evidence] == ["r1", "r2"]
    assert summary.bullets[1].evidence == (Citation(review_id="r1", span="김치는 별로예요"),)
    assert reader.notes == []


@pytest.mark.parametrize(
    ("said", "polarity", "spans", "note"),
    [
        (bullet("x", "positive", 1, 2), "positive", {"국물이 진해요."}, "1 citations that are not"),
        (bullet("x", "neutral", 2), "negative", {"김치는 별로예요"}, "mended to negative"),
        (bullet("x", "positive", 4), "neutral", {"아홉 시에 열어요"}, "mended to neutral"),
        (bullet("x", "positive", 2), None, set(), "dropped, it says positive"),
        (bullet("x", "negative", 1, 3), None, set(), "dropped, it says negative"),
        (bullet("x", "neutral", 1, 2), None, set(), "cites ['negative', 'positive']"),
        (bullet("  ", "positive", 1), None, set(), "blank"),
    ],
)
def test_a_bullet_and_what_it_cites_must_agree(reader, said, polarity, spans, note):
    sound = bullet("고기", "positive", 3)
    summary = reader.aspect("food", aspect_answer(said, sound), POINTS)
    assert summary is not None
    if polarity is None:
        assert [each.text for each in summary.bullets] == ["고기"]
    else:
        first = summary.bullets[0]
        assert (first.polarity, {each.span for each in first.evidence}) == (polarity, spans)
    assert len(reader.notes) == 1
    assert reader.notes[0].startswith("food, bullet 1: ")
    assert note in reader.notes[0]


def test_an_aspect_is_lost_where_no_bullet_or_no_sentence_stands(reader):
    assert reader.aspect("food", aspect_answer(bullet("x", "positive", 2)), POINTS) is None
    blank = aspect_answer(bullet("x", "positive", 1), sentence=" ")
    assert reader.aspect("food", blank, POINTS) is None
    assert reader.aspect("food", "아니요", POINTS) is None
    assert any("not one JSON object" in note for note in reader.notes)


def test_a_number_that_the_prompt_has_not_is_left_out(reader):
    summary = reader.aspect("food", aspect_answer(bullet("x", "positive", 1, 9)), POINTS)
    assert summary is not None
    assert [each.span for each in summary.bullets[0].evidence] == ["국물이 진해요."]
    assert len(reader.notes) == 1
    assert reader.notes[0].startswith("food: answer mended: bullets.evidence")


def test_a_bullet_said_twice_stands_once(reader):
    said = aspect_answer(bullet("국물", "positive", 1), bullet("국물", "positive", 3))
    summary = reader.aspect("food", said, POINTS)
    assert summary is not None
    assert len(summary.bullets) == 1
    assert reader.notes == ["food, bullet 2: left out, an earlier bullet says the same"]


def test_a_citation_that_is_not_verbatim_falls(reader):
    forged = [point("r1", "국물이 최고예요", "positive"), point("r9", "국물", "positive")]
    said = aspect_answer(bullet("국물", "positive", 1, 2))
    assert reader.aspect("food", said, forged) is None
    assert reader.notes == ["food, bullet 1: 2 citations not verbatim"]


def test_strengths_of_several_reviews_come_first(reader):
    said = json.dumps(
        {"strengths": [strength("친절한 사장님", "service", 3), strength("맛", "food", 1, 2)]}
    )
    strengths = reader.strengths(said, PRAISED)
    assert strengths is not None
    assert [each.claim for each in strengths.representative] == ["맛", "친절한 사장님"]
    assert [support(each) for each in strengths.representative] == [2, 1]
    assert strengths.distinct == ()
    assert reader.notes == ["strengths: 1 rest on a single review, and stand last"]


def test_a_strength_and_what_it_cites_must_agree(reader):
    said = json.dumps(
        {
            "strengths": [
                strength("국물", "price", 1),
                strength("섞인 말", "price", 1, 3),
                strength("고기와 사장님", "food", 2, 3),
                strength(" ", "food", 1),
            ]
        }
    )
    strengths = reader.strengths(said, PRAISED)
    assert strengths is not None
    assert [(each.claim, each.aspect, len(each.evidence)) for each in strengths.representative] == [
        ("국물", "food", 1),
        ("고기와 사장님", "food", 1),
    ]
    said_of = " ".join(reader.notes)
    for part in ("price mended to food", "cites ['food', 'service']", "that are not food", "blank"):
        assert part in said_of


def test_of_five_strengths_the_least_supported_goes(reader):
    said = json.dumps({"strengths": [strength(f"말 {n}", "food", 1, 2) for n in range(4)]})
    five = json.loads(said)["strengths"]
    five.insert(0, strength("홀로", "food", 1))
    strengths = reader.strengths(json.dumps({"strengths": five}), PRAISED)
    assert strengths is not None
    assert [each.claim for each in strengths.representative] == [f"말 {n}" for n in range(4)]
    assert reader.notes == ["strengths: 1 with the least support left out"]


def test_an_overall_summary(reader):
    assert reader.overall('{"overall":" 국물이 좋다 "}') == "국물이 좋다"
    assert reader.notes == []
    assert reader.overall('{"overall":" "}') is None
    assert reader.overall("국물이 좋다") is None
