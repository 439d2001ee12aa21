import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from data.contract import (
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    PHENOMENA,
    POLARITIES,
    SENTIMENTS,
    Evidence,
    Label,
)
from data.errors import ContractError
from data.labelling import ASPECT_POLARITIES, from_result, labelling_config, to_result

TEXT = "국물은 진한데😀 직원이 불친절해요 ㅠㅠ"
WHOLE = Label(
    sentiment="negative",
    intensity=-1,
    emotions=("anger", "disappointment"),
    aspects={"service": "negative", "food": "positive"},
    evidence=(
        Evidence(aspect="food", polarity="positive", start=0, end=7, text="국물은 진한데"),
        Evidence(aspect="service", polarity="negative", start=9, end=18, text="직원이 불친절해요"),
    ),
    phenomena=("mixed", "emoji"),
)


def choice(name: str, *codes: str) -> dict[str, object]:
    value = {"choices": list(codes)}
    return {"from_name": name, "to_name": "text", "type": "choices", "value": value}


def span(start: object, end: object, text: object, code: str) -> dict[str, object]:
    value = {"start": start, "end": end, "text": text, "labels": [code]}
    return {"from_name": "evidence", "to_name": "text", "type": "labels", "value": value}


def test_config_is_valid_and_holds_every_code() -> None:
    interface = LabelInterface(labelling_config())
    interface.validate()
    found = {name: set(control.labels) for name, control in interface._controls.items()}
    assert found["sentiment"] == set(SENTIMENTS)
    assert found["intensity"] == {str(step) for step in INTENSITIES}
    assert found["emotions"] == {*EMOTIONS, "none"}
    assert found["phenomena"] == set(PHENOMENA)
    assert all(found[f"aspect_{aspect}"] == set(ASPECT_POLARITIES) for aspect in ASPECTS)
    assert found["evidence"] == {f"{a}:{p}" for a in ASPECTS for p in POLARITIES}


def test_label_studio_accepts_our_results_and_refuses_others() -> None:
    interface = LabelInterface(labelling_config())
    assert (
        interface.validate_prediction({"result": to_result(WHOLE, TEXT)}, return_errors=True) == []
    )
    assert interface.validate_prediction({"result": [choice("sentiment", "great")]}) is False


def test_label_survives_the_way_there_and_back() -> None:
    assert from_result(to_result(WHOLE, TEXT), TEXT) == WHOLE


def spans_of(text: str) -> st.SearchStrategy[Evidence]:
    def build(at: tuple[int, int], aspect: str, polarity: str) -> Evidence:
        start, end = min(at), max(at) + 1
        return Evidence.model_validate(
            {
                "aspect": aspect,
                "polarity": polarity,
                "start": start,
                "end": end,
                "text": text[start:end],
            }
        )

    position = st.integers(0, len(text) - 1)
    return st.builds(
        build, st.tuples(position, position), st.sampled_from(ASPECTS), st.sampled_from(POLARITIES)
    )


@given(
    sentiment=st.sampled_from(SENTIMENTS),
    emotions=st.none() | st.sets(st.sampled_from(EMOTIONS)).map(tuple),
    aspects=st.none()
    | st.dictionaries(st.sampled_from(ASPECTS), st.sampled_from(ASPECT_POLARITIES)),
    evidence=st.lists(spans_of(TEXT), max_size=4).map(tuple),
)
def test_any_label_survives(
    sentiment: str, emotions: object, aspects: object, evidence: object
) -> None:
    label = Label.model_validate(
        {"sentiment": sentiment, "emotions": emotions, "aspects": aspects, "evidence": evidence}
    )
    assert from_result(to_result(label, TEXT), TEXT) == label


def test_an_empty_set_is_not_an_unlabelled_task() -> None:
    empty = Label(sentiment="neutral", emotions=(), aspects={})
    back = from_result(to_result(empty, "그냥 그래요"), "그냥 그래요")
    assert (back.emotions, back.aspects) == ((), {})
    only = from_result([choice("sentiment", "neutral")], "그냥 그래요")
    assert (only.emotions, only.aspects) == (None, None)


@pytest.mark.parametrize(
    ("result", "reason", "says"),
    [
        ([choice("sentiment", "great")], "label_outside_set", "'great'"),
        ([choice("mood", "joy")], "label_outside_set", "'mood'"),
        ([choice("sentiment", "positive")] * 2, "labelled_twice", "positive, positive"),
        ([choice("sentiment", "positive", "negative")], "labelled_twice", "keep one"),
        ([choice("emotions", "none", "joy")], "labelled_twice", "'none'"),
        ([choice("aspects", "none"), choice("aspect_food", "mixed")], "labelled_twice", "food"),
        ([span(0, 3, "고기가", "food:positive")], "span_not_in_text", "'고기가'"),
        ([span(0, 999, "국물은", "food:positive")], "span_not_in_text", "0:999"),
        ([span("0", 3, "국물은", "food:positive")], "wrong_type", "'0'"),
        ([span(-3, 2, "국물", "food:positive")], "label_outside_set", "-3"),
        ([span(0, 3, "국물은", "food:great")], "label_outside_set", "'food:great'"),
        ([span(0, 3, "국물은", "food:positive")], "unlabelled", "no task"),
        ([choice("sentiment")], "wrong_type", "list of codes"),
        (["positive"], "wrong_type", "'positive'"),
        ([], "unlabelled", "no task"),
    ],
)
def test_what_is_outside_the_contract_is_refused(
    result: list[object], reason: str, says: str
) -> None:
    with pytest.raises(ContractError, match=says) as caught:
        from_result(result, TEXT)
    assert caught.value.reason == reason  # type: ignore[attr-defined]


def test_utf16_offsets_of_old_releases_are_read_by_their_words() -> None:
    late = "직원이 불친절해요"
    label = from_result(
        [choice("sentiment", "negative"), span(10, 19, late, "service:negative")], TEXT
    )
    assert (label.evidence[0].start, label.evidence[0].end) == (9, 18)


def test_a_label_with_a_wrong_span_is_not_written() -> None:
    with pytest.raises(ContractError, match="code points"):
        to_result(WHOLE, TEXT[1:])


def test_notes_are_not_labels() -> None:
    note = {"from_name": "note", "to_name": "text", "type": "textarea", "value": {"text": ["?"]}}
    assert from_result([choice("sentiment", "neutral"), note], TEXT).sentiment == "neutral"
