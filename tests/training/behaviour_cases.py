"""What a Korean review model should know: minimum functionality, invariance and direction.

Own writing. A model is measured by the share it passes; nobody asserts 100%. Load this file by
path: tests are no package.

    minimum      each text has the given sentiment
    invariance   all texts have one sentiment, whichever it is: typing must not change it
    direction    each text is more positive than the next
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["minimum", "invariance", "direction"]
NAMES = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Case:
    kind: Kind
    phenomenon: str
    texts: tuple[str, ...]
    sentiment: str | None = None


def _minimum(phenomenon: str, sentiment: str, *texts: str) -> list[Case]:
    return [Case("minimum", phenomenon, (text,), sentiment) for text in texts]


CASES: tuple[Case, ...] = (
    *_minimum(
        "plain",
        "positive",
        "음식이 맛있고 직원분들이 친절해요",
        "국물이 진해서 한 그릇 다 비웠어요. 또 올게요",
        "가격도 착하고 양도 푸짐합니다",
    ),
    *_minimum(
        "plain",
        "negative",
        "음식이 식어서 나왔고 맛도 없었어요",
        "직원이 반말을 해서 기분이 상했습니다",
        "테이블이 끈적거리고 컵에서 냄새가 났어요",
    ),
    *_minimum(
        "plain",
        "neutral",
        "매주 월요일은 쉽니다",
        "이 층에 있고 계단으로 올라갑니다",
        "맛도 가격도 그냥 보통이에요",
    ),
    *_minimum("negation", "negative", "친절하지 않아요", "하나도 안 맛있어요", "다시는 안 갑니다"),
    *_minimum("negation", "negative", "추천하고 싶지 않은 집", "가격만큼 만족스럽지 못했어요"),
    *_minimum("negation", "positive", "흠잡을 데가 없어요", "한 번도 실망한 적이 없습니다"),
    *_minimum("negation", "positive", "이보다 더 좋을 수 없다"),
    *_minimum(
        "slang",
        "positive",
        "여기 존맛탱 ㄹㅇ",
        "JMT 인정합니다",
        "가성비 개꿀",
        "맛도리 그 자체ㅋㅋ",
    ),
    *_minimum(
        "slang",
        "negative",
        "노맛이라 돈 날림",
        "가격 창렬 ㅡㅡ",
        "서비스 실화냐 빡침",
        "핵노맛 ㅠㅠ",
    ),
    *_minimum("emoji", "positive", "국수 👍👍", "여기 진짜 😋❤"),
    *_minimum("emoji", "negative", "이게 뭐죠 😡", "위생 상태 🤮"),
    *_minimum("sarcasm", "negative", "물만 한 시간 마시다 왔네요, 참 빠르기도 하지"),
    *_minimum("sarcasm", "negative", "머리카락을 서비스로 주시다니 감동입니다"),
    *_minimum("delivery", "negative", "배달이 두 시간 걸렸고 면이 다 불었어요"),
    *_minimum("delivery", "positive", "배달도 빠르고 포장도 꼼꼼했어요"),
    Case("invariance", "spacing", ("고기가 정말 부드럽고 맛있어요", "고기가정말부드럽고맛있어요")),
    Case(
        "invariance",
        "spacing",
        ("직원이 너무 불친절해서 화가 났어요", "직원이너무불친절해서화가났어요"),
    ),
    Case("invariance", "typo", ("국물이 맛있어요", "국물이 마싯어요", "국물이 맛잇어요")),
    Case("invariance", "typo", ("별로였어요", "별루였어요", "별로엿어요")),
    Case("invariance", "typo", ("너무 비싸요", "넘 비싸요", "너무 비싸여")),
    Case("invariance", "repeats", ("최고예요", "최고예요ㅋㅋㅋㅋㅋㅋ", "최고예요!!!!")),
    Case("invariance", "repeats", ("실망했습니다", "실망했습니다...", "실망했습니다ㅠㅠㅠㅠ")),
    Case("invariance", "names", ("강남점 파스타 맛있어요", "전주점 파스타 맛있어요")),
    Case("invariance", "names", ("김치찌개가 싱거워요", "된장찌개가 싱거워요")),
    Case("invariance", "politeness", ("맛있다", "맛있어요", "맛있습니다", "맛있음")),
    Case("direction", "negation", ("직원이 친절해요", "직원이 불친절해요")),
    Case("direction", "negation", ("맛있어요", "맛있지 않아요")),
    Case("direction", "negation", ("또 갈 것 같아요", "또 가지는 않을 것 같아요")),
    Case("direction", "negation", ("맛이 없지는 않아요", "맛이 없어요")),
    Case("direction", "intensity", ("인생 최고의 맛집", "먹을 만해요", "최악의 식당")),
    Case("direction", "intensity", ("정말 만족합니다", "그저 그래요", "정말 실망입니다")),
    Case("direction", "mixed", ("맛도 좋고 친절해요", "맛은 좋은데 너무 불친절해요")),
    Case("direction", "added", ("양이 많아요", "양이 많아요. 그런데 벌레가 나왔어요")),
    Case("direction", "added", ("분위기가 좋아요. 또 올게요", "분위기가 시끄러워요. 안 올래요")),
    Case("direction", "emoji", ("배달 왔어요 😍", "배달 왔어요 😡")),
)


def passes(case: Case, chances: Any) -> bool:
    """Whether sentiment probabilities (texts, 3) of the case's texts are as they should be."""
    labels = chances.argmax(axis=1)
    if case.kind == "minimum":
        return NAMES[int(labels[0])] == case.sentiment
    if case.kind == "invariance":
        return len(set(labels.tolist())) == 1
    leaning = chances[:, 2] - chances[:, 0]
    return bool((np.diff(leaning) < 0).all())


def pass_rates(predict: Callable[[Sequence[str]], Any]) -> dict[str, tuple[int, int]]:
    """(passed, cases) of each kind, for anything that answers texts with probability arrays."""
    rates: dict[str, tuple[int, int]] = {}
    for case in CASES:
        passed, total = rates.get(case.kind, (0, 0))
        right = passes(case, predict(case.texts).sentiment)
        rates[case.kind] = (passed + right, total + 1)
    return rates
