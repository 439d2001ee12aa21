import pytest

from data.contract import Evidence, Label, LabelledReview, Review
from data.quality import contradictions, likely_label_errors, text_flags


def spans(*codes: str) -> tuple[Evidence, ...]:
    return tuple(
        Evidence.model_validate({"aspect": a, "polarity": p, "start": 0, "end": 1, "text": "가"})
        for a, p in (code.split(":") for code in codes)
    )


def codes_of(**fields: object) -> list[str]:
    return [found.code for found in contradictions(Label.model_validate(fields))]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sentiment": "positive", "intensity": -1}, ["sentiment_against_intensity"]),
        ({"sentiment": "neutral", "intensity": 0}, []),
        ({"sentiment": "positive"}, []),
        (
            {"aspects": {"food": "mixed"}, "evidence": spans("food:negative")},
            ["mixed_without_both"],
        ),
        ({"aspects": {"food": "mixed"}, "evidence": spans("food:negative", "food:positive")}, []),
        (
            {"aspects": {"food": "positive"}, "evidence": spans("food:negative")},
            ["evidence_against_aspect"],
        ),
        (
            {"aspects": {"food": "negative"}, "evidence": spans("food:negative", "food:positive")},
            ["evidence_against_aspect"],
        ),
        (
            {
                "aspects": {"food": "positive", "price": "negative"},
                "evidence": spans("food:positive", "food:neutral"),
            },
            ["aspect_without_evidence"],
        ),
        ({"aspects": {}, "evidence": spans("food:positive")}, ["evidence_without_aspect"]),
        ({"aspects": {"food": "positive"}}, []),
        ({"sentiment": "positive", "evidence": spans("food:positive")}, []),
    ],
)
def test_contradictions(fields: dict[str, object], expected: list[str]) -> None:
    assert codes_of(**fields) == expected


def reviews(swapped: int) -> list[LabelledReview]:
    good = [
        "정말 맛있고 친절해서 또 오고 싶어요",
        "최고로 맛있는 집 친절해요",
        "맛있고 친절한 최고 맛집",
    ]
    bad = ["너무 짜고 불결해서 다시는 안 가요", "최악으로 짜고 더러워요", "짜고 불결한 최악의 식당"]
    rows = []
    for number in range(40):
        positive = number % 2 == 0
        text = f"{(good if positive else bad)[number % 3]} {number}"
        wrong = number < swapped
        label = Label(sentiment="positive" if positive != wrong else "negative")
        rows.append(LabelledReview(review=Review(review_id=str(number), text=text), label=label))
    return rows


def test_swapped_labels_are_found_and_ranked() -> None:
    found, skipped = likely_label_errors(reviews(2), seed=0, most_rows=1000)
    assert skipped is None
    assert {error.position for error in found} == {0, 1}
    assert [error.score for error in found] == sorted(error.score for error in found)
    assert all(error.given != error.suggested for error in found)
    assert likely_label_errors(reviews(0), seed=0, most_rows=1000) == ([], None)


def test_the_search_says_why_it_was_skipped() -> None:
    assert "more than" in str(likely_label_errors(reviews(0), seed=0, most_rows=10)[1])
    one_class = [row for row in reviews(0) if row.label.sentiment == "positive"]
    assert "only one class" in str(likely_label_errors(one_class, seed=0, most_rows=100)[1])
    assert "fewer than" in str(likely_label_errors(reviews(0)[:6], seed=0, most_rows=100)[1])
    assert likely_label_errors([], seed=0, most_rows=100)[0] == []


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("맛있어요", []),
        ("👍👍!!", ["no_letters"]),
        ("very good place 굿", ["little_korean"]),
        ("ㅋ" * 12, ["repeated"]),
        ("맛\u202e있", ["control_characters"]),
        (
            "가나다라마바사 아자차카타파하 " + "".join(map(chr, range(0xAC00, 0xAC00 + 1000))),
            ["very_long"],
        ),
    ],
)
def test_text_flags(text: str, flags: list[str]) -> None:
    assert text_flags(text) == flags
