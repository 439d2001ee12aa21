"""The diners' own words, where a model's cannot be used."""

import pytest

from data.contract import AspectSummary, Polarity
from data.prompts import Point
from serving.extractive import extractive_aspect, extractive_overall, most_typical, shortened


def points(*said: tuple[str, Polarity]) -> list[Point]:
    return [
        Point(f"r{number}", text, "food", polarity) for number, (text, polarity) in enumerate(said)
    ]


def test_the_most_typical_words_come_first():
    ranked = most_typical(
        points(
            ("주차장이 넓다", "positive"),
            ("국물이 진하다", "positive"),
            ("국물이 아주 진하다", "positive"),
            ("국물이 진하고 좋다", "positive"),
        )
    )
    assert ranked[0].span in {"국물이 진하다", "국물이 아주 진하다"}
    assert ranked[-1].span == "주차장이 넓다"


def test_each_polarity_has_its_bullet_and_every_bullet_is_verbatim():
    given = points(
        ("국물이 진하다", "positive"),
        ("국물이 참 진하다", "positive"),
        ("고기가 질기다", "negative"),
    )
    summary = extractive_aspect(given)
    assert summary.polarity == "mixed"
    assert [each.polarity for each in summary.bullets[:2]] == ["positive", "negative"]
    spans = {point.review_id: point.span for point in given}
    for bullet in summary.bullets:
        (citation,) = bullet.evidence
        assert bullet.text == spans[citation.review_id] == citation.span
    assert summary.sentence == " / ".join(bullet.text for bullet in summary.bullets)


def test_one_word_is_enough_and_the_same_words_count_once():
    assert len(extractive_aspect(points(("맛", "positive"))).bullets) == 1
    same = extractive_aspect(points(*[("맛있어요", "positive")] * 4))
    assert len(same.bullets) == 1


def test_long_clauses_fit_and_stay_verbatim():
    long = "국물이 " * 29 + "진하다"
    summary = extractive_aspect(points((long, "positive"), ("가" * 120, "negative")))
    for bullet in summary.bullets:
        assert len(bullet.text) <= 80
        assert bullet.evidence[0].span.startswith(bullet.text)
    assert len(summary.sentence) <= 200


def test_sentences_are_joined_whole_as_far_as_they_fit():
    long = AspectSummary(polarity="positive", sentence="좋" * 200, bullets=())
    assert extractive_overall({"food": long}) == "음식: " + "좋" * 200
    joined = extractive_overall({"food": long, "service": long})
    assert joined == "음식: " + "좋" * 200
    short = AspectSummary(polarity="negative", sentence="비싸다", bullets=())
    both = extractive_overall({"food": long, "price": short})
    assert both.endswith(" 가격: 비싸다")
    assert len(both) <= 400


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("가나 다라", 10, "가나 다라"),
        ("가나 다라", 4, "가나"),
        ("가나다라마", 3, "가나다"),
        ("가 나", 2, "가"),
    ],
)
def test_what_is_too_long_is_cut_at_a_space(text, limit, expected):
    assert shortened(text, limit) == expected
