"""A small town with labelled reviews and written summaries, a fake engine, and its evaluation."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data.contract import (
    ASPECTS,
    KOREAN,
    Aspect,
    AspectSummary,
    Bullet,
    CategorySummary,
    Citation,
    Evidence,
    Label,
    LabelledReview,
    Polarity,
    RestaurantSummary,
    Review,
    Strength,
    Strengths,
    aspect_polarity,
)
from data.manifest import write_labelled_reviews, write_manifest
from data.targets import build_targets
from serving.engines.chat import ChatAnswer, ChatRequest
from training.evaluation.language.baselines import EMPTY
from training.evaluation.language.evaluation import evaluate_language_models
from training.evaluation.language.gold import Gold, read_gold

PHRASES: dict[Aspect, tuple[tuple[str, Polarity], ...]] = {
    "food": (
        ("국물이 진하고 구수해요", "positive"),
        ("고기가 질기고 차갑게 나왔어요", "negative"),
        ("튀김이 바삭해서 계속 들어갑니다", "positive"),
        ("면이 퍼져서 반쯤 남겼습니다", "negative"),
    ),
    "service": (
        ("사장님이 먼저 반찬을 채워 주세요", "positive"),
        ("불러도 직원이 오지 않아요", "negative"),
        ("아이 의자까지 챙겨 주셨습니다", "positive"),
    ),
    "atmosphere": (
        ("창밖으로 강이 내려다보여요", "positive"),
        ("음악이 시끄러워 대화가 안 됩니다", "negative"),
    ),
    "price": (
        ("이 값에 이만한 양은 드물어요", "positive"),
        ("한 접시에 오만 원은 지나칩니다", "negative"),
        ("점심 특선은 만 이천 원입니다", "neutral"),
    ),
    "hygiene": (
        ("수저에 밥풀이 말라붙어 있었어요", "negative"),
        ("주방이 훤히 보이고 반짝거립니다", "positive"),
    ),
    "access": (
        ("지하철에서 내려 이 분이면 닿아요", "positive"),
        ("차를 댈 곳이 아예 없습니다", "negative"),
        ("월요일마다 문을 닫습니다", "neutral"),
    ),
}
PLACES = ("강릉", "부산", "춘천", "전주", "속초", "대구", "목포", "인천", "경주", "수원")
REVIEWS = 4
Say = Callable[[ChatRequest], str]


class FakeEngine:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, name: str, say: Say) -> None:
        self.name = name
        self.say = say
        self.asked: list[ChatRequest] = []

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        self.asked += requests
        return [ChatAnswer(self.say(request), "stop") for request in requests]


def _empties(request: ChatRequest) -> str:
    """The empty skeleton of whichever task is asked."""
    words = {"라벨": "labels", "항목 요약": "aspect", "총평": "overall", "강점": "strengths"}
    title = request.messages[-1]["content"].splitlines()[0].removeprefix("[과제] ")
    return EMPTY[words[title]]


def row_of(town: int, number: int) -> LabelledReview:
    """A review of two clauses, or of one aspect alone; no two restaurants speak alike."""
    chosen = [ASPECTS[(town + number) % 6], ASPECTS[(town * 2 + number * 3 + 1) % 6]]
    evidence, text = [], ""
    for aspect in dict.fromkeys(chosen):
        words, polarity = PHRASES[aspect][(town + 2 * number) % len(PHRASES[aspect])]
        phrase = f"{PLACES[town]}에서 {words}"
        text += " " if text else ""
        start = len(text)
        text += f"{phrase}."
        evidence.append(
            Evidence(
                aspect=aspect, polarity=polarity, start=start, end=len(text), text=text[start:]
            )
        )
    states = {
        aspect: aspect_polarity({each.polarity for each in evidence if each.aspect == aspect})
        for aspect in {each.aspect for each in evidence}
    }
    tone = sum({"positive": 1, "negative": -1}.get(each.polarity, 0) for each in evidence)
    return LabelledReview(
        review=Review(review_id=f"s{town}-{number}", text=text, restaurant_id=f"s{town}"),
        label=Label(
            sentiment="positive" if tone > 0 else "negative" if tone < 0 else "neutral",
            intensity=max(-2, min(2, tone)),
            emotions=("joy",) if tone > 0 else ("disappointment",) if tone < 0 else (),
            aspects=states,
            evidence=tuple(evidence),
        ),
    )


def summary_of(town: int, rows: Sequence[LabelledReview]) -> RestaurantSummary:
    cited: dict[Aspect, list[tuple[Polarity, Citation]]] = {}
    for row in rows:
        for each in row.label.evidence:
            citation = Citation(review_id=row.review.review_id, span=each.text)
            cited.setdefault(each.aspect, []).append((each.polarity, citation))
    aspects = {
        aspect: AspectSummary(
            polarity=aspect_polarity({polarity for polarity, _ in found}),
            sentence=f"{KOREAN[aspect]}: {PLACES[town]} 손님은 {found[0][1].span} 하고 전한다",
            bullets=tuple(
                Bullet(
                    text=f"{citation.span[:-1]} 하는 손님", polarity=polarity, evidence=(citation,)
                )
                for polarity, citation in found[:5]
            ),
        )
        for aspect, found in cited.items()
    }
    praised = [
        Strength(aspect=aspect, claim=citation.span[:20], evidence=(citation,))
        for aspect, found in cited.items()
        for polarity, citation in found
        if polarity == "positive"
    ]
    spoken = ", ".join(KOREAN[aspect] for aspect in aspects)
    return RestaurantSummary(
        restaurant_id=f"s{town}",
        summary=CategorySummary(
            overall=f"{PLACES[town]} 집은 {spoken} 이야기가 많다. {rows[0].review.text}",
            aspects=aspects,
        ),
        strengths=Strengths(representative=(), distinct=tuple(praised[:3])),
    )


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A split and its targets: restaurants s0…s5 are the test part, s6…s8 train, s9 validation."""
    folder = tmp_path_factory.mktemp("town")
    split, targets = folder / "split", folder / "targets"
    split.mkdir()
    rows = {town: [row_of(town, number) for number in range(REVIEWS)] for town in range(10)}
    for part, towns in (("test", range(6)), ("train", range(6, 9)), ("validation", range(9, 10))):
        own = [row for town in towns for row in rows[town]]
        write_labelled_reviews(split / f"{part}.jsonl", own)
    write_manifest(split, "split", {"seed": 0, "snapshot_id": "town"})
    summaries = folder / "summaries.jsonl"
    lines = [summary_of(town, mine).model_dump_json() for town, mine in rows.items()]
    summaries.write_text("\n".join(lines), encoding="utf-8")
    manifest = build_targets(split, summaries, targets)
    assert manifest.facts["quarantined"] == 0
    return split, targets


@pytest.fixture(scope="session")
def gold(town: tuple[Path, Path]) -> Gold:
    split, targets = town
    return read_gold(targets, split)[0]


@pytest.fixture(scope="session")
def says_gold(gold: Gold) -> Say:
    answers = {each.messages[-1]["content"]: each.answer for each in gold.examples}

    def say(request: ChatRequest) -> str:
        return answers.get(request.messages[-1]["content"]) or _empties(request)

    return say


@pytest.fixture(scope="session")
def says_empties() -> Say:
    return _empties


@pytest.fixture(scope="session")
def says_garbage() -> Say:
    return lambda _: "Sure! Here is 很好 <script>alert(1)</script> {"


@pytest.fixture(scope="session")
def engine() -> type[FakeEngine]:
    return FakeEngine


@pytest.fixture(scope="session")
def evaluated(
    town: tuple[Path, Path],
    engine: type[FakeEngine],
    says_gold: Say,
    says_garbage: Say,
    says_empties: Say,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An evaluation of three models: one says gold, one garbage, one the empty skeletons."""
    split, targets = town
    out = tmp_path_factory.mktemp("evaluation") / "out"
    engines = {"gold": says_gold, "garbage": says_garbage, "skeleton": says_empties}
    evaluate_language_models(
        targets,
        {name: engine(name, say) for name, say in engines.items()},
        out,
        split=split,
        resamples=200,
    )
    return out


@pytest.fixture(scope="session")
def metrics_of() -> Callable[[Path], Any]:
    """Reads the figures of an evaluation's folder."""
    return lambda folder: json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
