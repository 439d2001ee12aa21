import json
from typing import Any

import jsonschema
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from data.answers import (
    ANSWERS,
    MAX_EVIDENCE,
    MAX_STRENGTHS,
    AspectAnswer,
    AspectStates,
    BulletAnswer,
    ClauseEvidence,
    LabelsAnswer,
    OverallAnswer,
    StrengthAnswer,
    StrengthsAnswer,
    bullet_of,
    decoding_schema,
    dump_answer,
    label_of,
    read_answer,
    strength_of,
)
from data.clauses import split_clauses
from data.contract import ASPECTS, MAX_CITATIONS, Citation, Label
from data.errors import ContractError
from data.prompts import TASKS, Point, Task

NUMBERED = 3
LABELS = LabelsAnswer(
    evidence=[
        ClauseEvidence(clause="#1", aspect="food", polarity="positive"),
        ClauseEvidence(clause="#2", aspect="food", polarity="negative"),
    ],
    aspects=AspectStates.model_validate(dict.fromkeys(ASPECTS, "absent") | {"food": "mixed"}),
    intensity=-1,
    sentiment="negative",
    emotions=["disappointment"],
)
ASPECT = AspectAnswer(
    bullets=[
        BulletAnswer(evidence=["#1", "#3"], polarity="positive", text="국물이 진하다"),
        BulletAnswer(evidence=["#2"], polarity="negative", text="김치가 시다"),
    ],
    sentence="국물은 좋고 김치는 시다.",
)
OVERALL = OverallAnswer(overall="국물이 좋은 집이다.")
STRENGTHS = StrengthsAnswer(
    strengths=[StrengthAnswer(aspect="food", evidence=["#1"], claim="오래 끓여 진한 국물이 좋다")]
)
GOOD: dict[Task, BaseModel] = {
    "labels": LABELS,
    "aspect": ASPECT,
    "overall": OVERALL,
    "strengths": STRENGTHS,
}
POINTS = [
    Point("r1", "국물이 진하고", "food", "positive"),
    Point("r2", "김치가 시다", "food", "negative"),
    Point("r1", "국물이 진하고", "price", "positive"),
]


def changed(answer: BaseModel, **values: object) -> dict[str, Any]:
    return answer.model_dump(mode="json") | values


def text_of(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def accepts(task: Task, value: object, numbered: int = NUMBERED) -> bool:
    schema = decoding_schema(task, numbered)
    return jsonschema.Draft202012Validator(schema).is_valid(value)


BAD: list[tuple[Task, dict[str, Any]]] = [
    (
        "labels",
        changed(LABELS, evidence=[{"clause": "#4", "aspect": "food", "polarity": "neutral"}]),
    ),
    (
        "labels",
        changed(LABELS, evidence=[{"clause": "1", "aspect": "food", "polarity": "neutral"}]),
    ),
    ("labels", changed(LABELS, evidence=[{"clause": "#1", "aspect": "food", "polarity": "mixed"}])),
    ("labels", changed(LABELS, aspects={"food": "mixed"})),
    ("labels", changed(LABELS, aspects=dict.fromkeys([*ASPECTS, "parking"], "absent"))),
    ("labels", changed(LABELS, intensity=3)),
    ("labels", changed(LABELS, intensity="1")),
    ("labels", changed(LABELS, intensity=True)),
    ("labels", changed(LABELS, sentiment="긍정")),
    ("labels", changed(LABELS, emotions=["boredom"])),
    ("labels", changed(LABELS, emotions=None)),
    ("labels", changed(LABELS, reason="맛있어서")),
    ("aspect", changed(ASPECT, bullets=[])),
    ("aspect", changed(ASPECT, bullets=[{"evidence": ["#0"], "polarity": "neutral", "text": "x"}])),
    ("aspect", changed(ASPECT, bullets=[{"evidence": ["#4"], "polarity": "neutral", "text": "x"}])),
    ("aspect", changed(ASPECT, bullets=[{"evidence": [], "polarity": "neutral", "text": "x"}])),
    ("aspect", changed(ASPECT, bullets=[{"evidence": ["#1"], "polarity": "neutral", "text": ""}])),
    ("aspect", changed(ASPECT, sentence="가" * 201)),
    ("overall", changed(OVERALL, overall="가" * 401)),
    ("overall", {}),
    ("strengths", changed(STRENGTHS, strengths=[{"aspect": "food", "evidence": ["#1"]}])),
    (
        "strengths",
        changed(STRENGTHS, strengths=[{"aspect": "맛", "evidence": ["#1"], "claim": "x"}]),
    ),
]


@pytest.mark.parametrize("task", TASKS)
def test_what_is_taught_is_read_as_it_stands(task: Task) -> None:
    text = dump_answer(GOOD[task])
    assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    reading = read_answer(ANSWERS[task], text, NUMBERED)
    assert reading.answer == GOOD[task]
    assert (reading.parsed, reading.obeyed, reading.mends) == (True, True, [])


@pytest.mark.parametrize("task", TASKS)
def test_the_schema_is_self_contained_and_accepts_what_is_taught(task: Task) -> None:
    schema = decoding_schema(task, NUMBERED)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert accepts(task, orjson.loads(dump_answer(GOOD[task])))
    written = text_of(schema)
    assert "$ref" not in written
    assert "$defs" not in written
    assert "pattern" not in written
    assert decoding_schema(task, NUMBERED) == schema


@pytest.mark.parametrize(("task", "value"), BAD)
def test_the_schema_and_the_reader_refuse_the_same(task: Task, value: dict[str, Any]) -> None:
    assert not accepts(task, value)
    reading = read_answer(ANSWERS[task], text_of(value), NUMBERED)
    assert reading.parsed
    assert not reading.obeyed
    assert reading.mends


def test_keys_stand_in_the_order_they_are_said() -> None:
    def orders(node: Any) -> list[list[str]]:
        if isinstance(node, list):
            return [order for each in node for order in orders(each)]
        if not isinstance(node, dict):
            return []
        inner = [order for each in node.values() for order in orders(each)]
        if "properties" not in node:
            return inner
        assert list(node["properties"]) == node["required"]
        assert node["additionalProperties"] is False
        return [node["required"], *inner]

    assert orders(decoding_schema("labels", 1))[0] == list(LabelsAnswer.model_fields)
    assert orders(decoding_schema("aspect", 1)) == [
        ["bullets", "sentence"],
        ["evidence", "polarity", "text"],
    ]
    assert orders(decoding_schema("strengths", 1))[1] == ["aspect", "evidence", "claim"]


def test_only_numbers_of_the_prompt_can_be_cited() -> None:
    schema = decoding_schema("aspect", 12)
    cited = schema["properties"]["bullets"]["items"]["properties"]["evidence"]
    assert cited["items"]["enum"] == [f"#{number}" for number in range(1, 13)]
    assert cited["maxItems"] == MAX_CITATIONS
    value = orjson.loads(dump_answer(ASPECT))
    assert accepts("aspect", value, numbered=3)
    assert not accepts("aspect", value, numbered=2)


def test_one_schema_can_be_changed_without_the_next() -> None:
    decoding_schema("labels", 2)["properties"].clear()
    assert decoding_schema("labels", 2)["properties"]


@pytest.mark.parametrize("task", ["labels", "aspect", "strengths"])
def test_a_prompt_that_numbers_nothing_is_not_asked(task: Task) -> None:
    with pytest.raises(ContractError, match=rf"{task}.* numbers 0 lines"):
        decoding_schema(task, 0)
    assert decoding_schema("overall", 0)["required"] == ["overall"]


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"overall":"국물이 좋은 집이다."}\n```',
        '네, 답입니다: {"overall":"국물이 좋은 집이다."}',
        '{"overall":"국물이 좋은 집이다."',
        "{'overall': '국물이 좋은 집이다.',}",
    ],
)
def test_json_that_is_wrapped_or_cut_is_repaired_and_says_so(text: str) -> None:
    reading = read_answer(OverallAnswer, text, 0)
    assert reading.answer == OVERALL
    assert (reading.parsed, reading.obeyed) == (False, False)
    assert reading.mends == ["not one JSON object"]


def test_an_answer_cut_short_keeps_what_was_said_whole() -> None:
    whole = dump_answer(AspectAnswer(sentence="국물", bullets=ASPECT.bullets))
    assert read_answer(AspectAnswer, whole[: whole.index('"김치')], 3).answer is None
    strengths = dump_answer(StrengthsAnswer(strengths=STRENGTHS.strengths * 2))
    reading = read_answer(StrengthsAnswer, strengths[: strengths.rindex(',"claim"')], 3)
    assert reading.answer == STRENGTHS
    assert reading.mends == ["not one JSON object", "strengths: items left out (1)"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "text", ["", " ", "[1, 2]", "7", "null", '"긍정"', "긍정입니다", "NaN", "[" * 100_000, "\ud83d"]
)
def test_an_answer_that_is_no_object_is_nothing(task: Task, text: str) -> None:
    reading = read_answer(ANSWERS[task], text, NUMBERED)
    assert reading.answer is None
    assert (reading.parsed, reading.obeyed) == (False, False)
    assert reading.mends[0] == "not one JSON object"
    assert reading.mends[-1].endswith(": cannot be mended")


def test_a_hundred_thousand_characters_are_read_or_refused() -> None:
    long = read_answer(OverallAnswer, text_of({"overall": "가" * 100_000}), 0)
    assert (long.parsed, long.obeyed, long.mends) == (True, False, ["overall: cut to 400 (1)"])
    assert long.answer == OverallAnswer(overall="가" * 400)
    broken = read_answer(OverallAnswer, '{"overall":"' + "가" * 100_000, 0)
    assert broken.answer == OverallAnswer(overall="가" * 400)
    assert "cut to 4000 characters" in broken.mends


def test_unknown_keys_are_left_out() -> None:
    value = changed(LABELS, reason="맛있어서")
    value["aspects"] |= {"parking": "absent", "view": "positive"}
    reading = read_answer(LabelsAnswer, text_of(value), NUMBERED)
    assert reading.answer == LABELS
    assert sorted(reading.mends) == [
        "answer: unknown keys left out (1)",
        "aspects: unknown keys left out (2)",
    ]


def test_values_outside_the_sets_are_left_out_where_others_can_stand_without_them() -> None:
    value = changed(LABELS, emotions=["boredom", "disappointment", 3])
    value["evidence"].insert(0, {"clause": "#1", "aspect": "parking", "polarity": "positive"})
    reading = read_answer(LabelsAnswer, text_of(value), NUMBERED)
    assert reading.answer == LABELS
    assert sorted(reading.mends) == ["emotions: items left out (2)", "evidence: items left out (1)"]
    hopeless = read_answer(LabelsAnswer, text_of(value | {"sentiment": "긍정"}), NUMBERED)
    assert hopeless.answer is None
    assert hopeless.mends == ["sentiment: cannot be mended"]


def test_citations_of_nothing_go_and_so_do_claims_that_rest_on_them() -> None:
    value = changed(ASPECT)
    value["bullets"][0]["evidence"] = ["#9", "#1", "#99", "#3"]
    value["bullets"][1]["evidence"] = ["#4"]
    reading = read_answer(AspectAnswer, text_of(value), NUMBERED)
    assert reading.answer == AspectAnswer(bullets=ASPECT.bullets[:1], sentence=ASPECT.sentence)
    assert (reading.parsed, reading.obeyed) == (True, False)
    assert reading.mends == ["bullets.evidence: items left out (3)", "bullets: items left out (1)"]
    assert read_answer(AspectAnswer, text_of(value), 99).obeyed


def test_an_aspect_without_a_bullet_that_stands_is_nothing() -> None:
    reading = read_answer(AspectAnswer, dump_answer(ASPECT), 0)
    assert reading.answer is None
    assert reading.mends[-1] == "bullets: cannot be mended"


def test_lists_that_are_too_long_are_cut() -> None:
    evidence = [{"clause": "#1", "aspect": "food", "polarity": "positive"}] * (MAX_EVIDENCE + 4)
    reading = read_answer(LabelsAnswer, text_of(changed(LABELS, evidence=evidence)), NUMBERED)
    assert reading.answer is not None
    assert len(reading.answer.evidence) == MAX_EVIDENCE
    assert reading.mends == [f"evidence: cut to {MAX_EVIDENCE} (1)"]


@given(st.sampled_from(TASKS), st.data())
@settings(max_examples=60)
def test_whatever_is_said_is_read_without_an_error(task: Task, data: st.DataObject) -> None:
    whole = dump_answer(GOOD[task])
    at = data.draw(st.integers(0, len(whole)))
    other = data.draw(st.text(alphabet='{}[]":,#1234é가\\n', max_size=30))
    kept = data.draw(st.integers(0, len(whole) - at))
    reading = read_answer(ANSWERS[task], whole[:at] + other + whole[at + kept :], NUMBERED)
    assert reading.obeyed == (not reading.mends)
    assert reading.parsed or not reading.obeyed
    assert reading.answer is not None or not reading.obeyed
    if reading.answer is not None:
        assert accepts(task, orjson.loads(dump_answer(reading.answer)))


def test_a_label_has_verbatim_spans() -> None:
    text = "  국물은 진한데   김치가 너무 시다"
    label = label_of(LABELS, split_clauses(text))
    assert [each.text for each in label.evidence] == ["국물은 진한데", "김치가 너무 시다"]
    assert all(text[each.start : each.end] == each.text for each in label.evidence)
    assert label.aspects == {"food": "mixed"}
    assert (
        Label(
            sentiment="negative",
            intensity=-1,
            emotions=("disappointment",),
            aspects={"food": "mixed"},
            evidence=label.evidence,
        )
        == label
    )


def test_evidence_said_twice_is_one_span() -> None:
    twice = LABELS.model_copy(update={"evidence": [LABELS.evidence[0]] * 2})
    assert len(label_of(twice, split_clauses("국물은 진한데 김치가 너무 시다")).evidence) == 1


def test_bullets_and_strengths_cite_verbatim_spans_of_their_reviews() -> None:
    bullet = bullet_of(BulletAnswer(evidence=["#2", "#1"], polarity="negative", text="x"), POINTS)
    assert (bullet.text, bullet.polarity) == ("x", "negative")
    assert bullet.evidence == (
        Citation(review_id="r2", span="김치가 시다"),
        Citation(review_id="r1", span="국물이 진하고"),
    )
    strength = strength_of(STRENGTHS.strengths[0], POINTS)
    assert (strength.aspect, strength.claim) == ("food", "오래 끓여 진한 국물이 좋다")
    assert strength.evidence == (Citation(review_id="r1", span="국물이 진하고"),)


def test_a_clause_in_two_lines_is_cited_once() -> None:
    said = BulletAnswer(evidence=["#1", "#3", "#1"], polarity="positive", text="진하다")
    assert bullet_of(said, POINTS).evidence == (Citation(review_id="r1", span="국물이 진하고"),)


def test_all_that_a_summary_may_hold_can_be_said() -> None:
    seven = StrengthsAnswer(strengths=STRENGTHS.strengths * MAX_STRENGTHS)
    assert MAX_STRENGTHS == 7
    assert accepts("strengths", orjson.loads(dump_answer(seven)))
