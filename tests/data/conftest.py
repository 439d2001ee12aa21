"""A small hand-made corpus, written as a Label Studio export."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from data.contract import Evidence, Label, Restaurant, Review
from data.sources.label_studio import export_tasks

SAID: tuple[tuple[str, int, dict[str, str], tuple[str, ...]], ...] = (
    ("국물이 진하고 고기도 부드러워요", 2, {"food": "positive"}, ("joy",)),
    ("직원이 불친절해서 기분이 상했습니다", -2, {"service": "negative"}, ("anger",)),
    ("영업시간은 열한 시부터 아홉 시까지입니다", 0, {}, ()),
    ("창가 자리 분위기가 아늑하고 좋네요", 1, {"atmosphere": "positive"}, ()),
    ("가격에 비해 양이 너무 적어서 아쉬워요", -1, {"price": "negative"}, ("disappointment",)),
    ("주차장은 건물 뒤편에 있어요", 0, {"access": "neutral"}, ()),
)
PLACES = ("시장", "역 앞", "골목", "강변", "언덕", "항구", "대학로", "사거리", "공원", "호숫가")
DISHES = ("칼국수", "냉면", "비빔밥", "돈가스", "만두", "곱창", "초밥", "라멘", "떡볶이", "갈비탕")


def a_label(intensity: int, aspects: dict[str, str], emotions: tuple[str, ...], text: str) -> Label:
    sentiment = "neutral" if intensity == 0 else "positive" if intensity > 0 else "negative"
    evidence = tuple(
        Evidence(aspect=aspect, polarity=polarity, start=0, end=len(text), text=text)
        for aspect, polarity in aspects.items()
    )
    return Label.model_validate(
        {
            "sentiment": sentiment,
            "intensity": intensity,
            "emotions": emotions,
            "aspects": aspects,
            "evidence": evidence,
        }
    )


def restaurant(number: int) -> Restaurant:
    return Restaurant(
        restaurant_id=f"r{number}",
        name=f"{DISHES[number]} 가게",
        category="한식",
        region="서울",
        price_band="10k_20k",
    )


def corpus() -> list[dict[str, Any]]:
    """Sixty reviews of ten restaurants; every fourth is labelled by two annotators."""
    rows = []
    for number in range(60):
        at, said = number % 10, SAID[(number + number // 10) % len(SAID)]
        text = f"{PLACES[at]} {DISHES[number // 6]}: {said[0]} #{number * 7919 % 1000:03d}"
        label = a_label(said[1], said[2], said[3], text)
        review = Review(
            review_id=f"v{number}", text=text, restaurant_id=f"r{at}", written_on=date(2025, 10, 1)
        )
        first = ("kim", label, datetime(2025, 11, 1, tzinfo=UTC))
        second = ("lee", label, datetime(2025, 11, 2, tzinfo=UTC))
        rows.append((review, restaurant(at), [first, second] if number % 4 == 0 else [first]))
    return export_tasks(rows)


@pytest.fixture
def tasks() -> list[dict[str, Any]]:
    return corpus()


@pytest.fixture
def export(tmp_path: Path) -> Callable[[object], str]:
    """Writes tasks as an export file, and gives its path."""

    def write(tasks: object) -> str:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads a file of JSON lines."""
    return lambda path: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
