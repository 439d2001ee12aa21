import pytest

from data.contract import Evidence, Label, LabelledReview, Review
from data.privacy import find_personal_data, mask_review, mask_source, mask_text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("예약은 010-1234-5678 로", "phone"),
        ("01012345678", "phone"),
        ("010 1234 5678", "phone"),
        ("010.1234.5678", "phone"),
        ("０１０－１２３４－５６７８", "phone"),
        ("+82 10-1234-5678", "phone"),
        ("+82-2-123-4567", "phone"),
        ("02)123-4567", "phone"),
        ("(02) 123-4567", "phone"),
        ("031-123-4567입니다", "phone"),
        ("0507-1234-5678", "phone"),
        ("1588-1234", "phone"),
        ("900101-1234567", "resident_number"),
        ("9001011234567", "resident_number"),
        ("메일은a.b+c@naver.com으로", "email"),
        ("국민 123-45-678901", "account"),
        ("110-123-456789", "account"),
        ("계좌는 신한 11012345678 입니다", "account"),
        ("4111-1111-1111-1111", "card"),
        ("4111 1111 1111 1111", "card"),
    ],
)
def test_personal_data_is_masked(text: str, kind: str) -> None:
    masked, counts = mask_text(text)
    assert counts == {kind: 1}
    assert len(masked) == len(text)
    assert not any(character.isdigit() for character in masked)
    assert mask_text(masked) == (masked, {})


@pytest.mark.parametrize(
    "text",
    [
        "12,000원",
        "2025.10.31",
        "2025-10-31 18:30",
        "2024.12.24-2024.12.25",
        "3시 30분",
        "10,000~20,000원",
        "100000000원",
        "1인분 15000원, 2인분 28000원",
        "영업 11:00-21:00",
        "20251031",
        "12000-15000원",
        "평점 4.5/5, 800m, 1234-5678",
        "골뱅이@소주",
    ],
)
def test_prices_dates_and_quantities_stay(text: str) -> None:
    assert mask_text(text) == (text, {})


def test_several_kinds_are_counted() -> None:
    text = "010-1111-2222 또는 010-3333-4444, me@daum.net"
    assert mask_text(text)[1] == {"phone": 2, "email": 1}
    assert [found.kind for found in find_personal_data(text)] == ["phone", "phone", "email"]


def test_evidence_before_after_and_across_a_mask_still_holds() -> None:
    text = "친절해요😀 010-1234-5678 전화하면 받아요"
    spans = [(0, 4), (5, 11), (11, 25), (19, 23)]
    label = Label(
        sentiment="positive",
        evidence=tuple(
            Evidence(aspect="service", polarity="positive", start=s, end=e, text=text[s:e])
            for s, e in spans
        ),
    )
    masked, counts = mask_review(
        LabelledReview(review=Review(review_id="a", text=text), label=label)
    )
    assert counts == {"phone": 1}
    assert masked.review.text == "친절해요😀 ***-****-**** 전화하면 받아요"
    assert [(each.start, each.end) for each in masked.label.evidence] == spans
    assert [each.text for each in masked.label.evidence] == [
        masked.review.text[s:e] for s, e in spans
    ]


def test_a_source_row_is_masked_with_its_half_spans_but_not_its_ids() -> None:
    source = {
        "data": {"review_id": "010-1234-5678", "text": "전화 010-1234-5678"},
        "annotations": [{"result": [{"value": {"text": "1234-5678", "choices": ["2"]}}]}],
    }
    assert mask_source(source) == {
        "data": {"review_id": "010-1234-5678", "text": "전화 ***-****-****"},
        "annotations": [{"result": [{"value": {"text": "****-****", "choices": ["2"]}}]}],
    }
