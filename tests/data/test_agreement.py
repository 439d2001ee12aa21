import pytest

from data.agreement import agreement, first_pairs
from data.contract import Label

BAD = Label(sentiment="negative", intensity=-2, emotions=("anger",), aspects={"food": "negative"})
MILD = Label(sentiment="negative", intensity=-1, emotions=("anger",), aspects={"food": "negative"})
GOOD = Label(sentiment="positive", intensity=2, emotions=("joy",), aspects={"food": "positive"})


def test_same_answers_agree_wholly() -> None:
    found = agreement([(BAD, BAD), (GOOD, GOOD), (MILD, MILD)])
    assert found == {"sentiment": 1.0, "intensity": 1.0, "emotions": 1.0, "aspects": 1.0}


def test_a_near_miss_of_intensity_costs_less_than_a_far_one() -> None:
    sure = [(BAD, BAD), (GOOD, GOOD)] * 5
    near = agreement([*sure, (BAD, MILD)])["intensity"]
    far = agreement([*sure, (BAD, GOOD)])["intensity"]
    assert near is not None
    assert far is not None
    assert far < near < 1.0


def test_opposite_answers_are_worse_than_chance() -> None:
    found = agreement([(BAD, GOOD), (GOOD, BAD)])["sentiment"]
    assert found == pytest.approx(-0.5)


def test_nothing_is_said_without_pairs_or_variance() -> None:
    nothing = dict.fromkeys(("sentiment", "intensity", "emotions", "aspects"))
    assert agreement([]) == nothing
    assert agreement([(GOOD, GOOD)] * 3) == nothing
    only = Label(sentiment="positive", intensity=1)
    assert agreement([(only, only), (BAD, BAD)])["emotions"] is None


def test_a_third_annotation_does_not_count() -> None:
    assert first_pairs([[GOOD], [GOOD, BAD, BAD]]) == [(GOOD, BAD)]
