"""A hand-written Korean polarity lexicon: what word lists and a few rules of grammar can do.

Written from general knowledge of Korean before any labelled text was read, and not tuned on one.
Words are stems, found anywhere in the text, the longest first, so that 불친절 is never 친절.
"""

import re
from typing import Final

from data.contract import Aspect, Emotion

POLARITY: Final[dict[str, float]] = {
    # strong praise
    "존맛": 2.0, "jmt": 2.0, "개맛": 2.0, "핵맛": 2.0, "꿀맛": 2.0, "인생 맛집": 2.0,
    "인생맛집": 2.0, "최고": 2.0, "최애": 2.0, "환상": 2.0, "대박": 1.5, "감동": 1.8,
    "강추": 2.0, "완벽": 2.0, "끝내주": 2.0, "개꿀": 1.8, "미쳤": 1.5, "완전 맛": 1.8,
    "훌륭": 1.8, "사랑": 1.5, "엄지": 1.5, "따봉": 1.5, "레전드": 1.5, "굿": 1.2, "👍": 1.5,
    "❤": 1.5, "😍": 1.8, "😋": 1.5, "🥰": 1.5,
    # praise
    "맛있": 1.2, "맛나": 1.2, "마싯": 1.2, "마시써": 1.2, "맛잇": 1.2, "맛집": 1.2, "좋": 1.0,
    "조아": 1.0, "친절": 1.2, "추천": 1.0, "만족": 1.2, "신선": 1.0, "깔끔": 1.0, "깨끗": 1.0,
    "푸짐": 1.0, "넉넉": 0.9, "저렴": 1.0, "가성비": 0.8, "혜자": 1.3, "부드러": 0.8,
    "고소": 0.7, "쫄깃": 0.8, "바삭": 0.8, "촉촉": 0.8, "담백": 0.7, "든든": 0.8, "편하": 0.7,
    "편안": 0.8, "아늑": 0.9, "예쁘": 0.8, "이쁘": 0.8, "행복": 1.5, "감사": 1.3, "고맙": 1.3,
    "재방문": 1.2, "또 갈": 1.2, "또 가": 1.1, "또갈": 1.2, "또 올": 1.2, "또 시킬": 1.2,
    "단골": 1.1, "자주 가": 0.9, "정성": 1.0, "풍부": 0.8, "알차": 0.9, "괜찮": 0.6,
    "나쁘지 않": 0.2, "빠르": 0.6, "빨리 나": 0.6, "뷰가": 0.4, "잘 먹": 0.8, "굳": 0.8,
    "맛도리": 1.5, "취향저격": 1.4, "싸고": 0.8, "착한 가격": 1.2, "ㅎㅎ": 0.3, "ㅋㅋ": 0.2,
    "^^": 0.4, "흠잡을": 0.2, "인정": 0.5,
    # complaint
    "맛없": -1.5, "맛이 없": -1.5, "맛도 없": -1.5, "노맛": -1.8, "별로": -1.2, "실망": -1.5,
    "아쉽": -0.9, "아쉬": -0.9, "불친절": -1.6, "불편": -1.0, "비싸": -0.9, "비쌈": -0.9,
    "창렬": -1.6, "짜다": -0.7, "짜요": -0.7, "너무 짜": -1.2, "짰": -0.8, "느끼": -0.7,
    "싱겁": -0.7, "질기": -1.0, "질겨": -1.0, "퍽퍽": -0.9, "눅눅": -1.1, "식어": -0.8,
    "식은": -0.9, "차갑": -0.7, "덜 익": -1.4, "탔": -0.7, "비린": -1.2, "잡내": -1.1,
    "누린내": -1.1, "냄새나": -1.1, "냄새가": -0.8, "시끄러": -0.9, "시끄럽": -0.9, "좁": -0.7,
    "불쾌": -1.6, "더럽": -1.8, "더러": -1.8, "지저분": -1.5, "끈적": -1.0, "위생": -0.4,
    "머리카락": -1.8, "벌레": -2.0, "이물질": -2.0, "바퀴": -2.0, "배탈": -2.0, "상한": -1.8,
    "상했": -1.8, "짜증": -1.8, "화가": -1.6, "화나": -1.6, "어이없": -1.8, "어이가 없": -1.8,
    "최악": -2.0, "쓰레기": -2.0, "돈 아까": -2.0, "돈아까": -2.0, "아까운": -1.5,
    "아깝": -1.4, "후회": -1.5, "비추": -1.6, "다시는": -1.8, "다신": -1.6, "두번 다시": -1.8,
    "안 갈": -1.6, "안갈": -1.6, "안 가": -1.2, "무성의": -1.4, "성의없": -1.4, "성의 없": -1.4,
    "오래 걸": -0.9, "한참 기다": -0.9, "늦": -0.7, "누락": -1.3, "빠뜨": -1.0, "엉망": -1.6,
    "부족": -0.8, "적어": -0.6, "적고": -0.6, "양이 적": -0.9, "맹맹": -0.9, "밍밍": -0.9,
    # no polarity, but a stem above hides in them
    "음식은": 0.0, "음식이 식": -0.8, "굳이": 0.0, "무시무시": 0.0, "후식은": 0.0, "간식은": 0.0,
    "회식은": 0.0, "한식은": 0.0, "일식은": 0.0, "양식은": 0.0, "분식은": 0.0, "급식은": 0.0,
    # faint
    "평범": -0.2, "그저 그": -0.5, "그저그": -0.5, "그냥 그": -0.5, "그닥": -0.8, "노답": -1.6,
    "귀찮": -0.8, "무시": -1.2, "반말": -1.3, "환불": -1.2, "속상": -1.1, "슬프": -1.0,
    "역하": -1.6, "역겹": -1.8, "토할": -1.8, "ㅡㅡ": -1.0, "ㅠㅠ": -0.2, "😡": -1.8,
    "🤮": -2.0, "🤢": -1.8, "😤": -1.2, "👎": -1.6, "😞": -1.0, "변했": -0.7, "예전만 못": -1.2,
}  # fmt: skip
"""Stem to weight, -2 to +2."""

NEGATION_BEFORE: Final = re.compile(r"(?:^|\s)(?:안|못|별로|전혀|그닥|그다지)\s?$")
"""Before a stem: 안 좋다, 별로 맛있지."""
NEGATION_AFTER: Final = re.compile(
    r"^[가-힣]{0,3}?(?:지\s?(?:는|도|가|를)?\s?(?:않|안|못|말)|진\s?(?:않|안|못)|질\s?(?:않|못)"
    r"|\s?(?:줄|것도|게|한 게|은 게)\s?(?:모르|없)|\s?아니)"
)
"""After a stem: 좋지 않다, 맛있진 않다, 친절한 게 없다."""
CLAUSE_END: Final = re.compile(
    r"[.!?~\n,…]+|(?<=지만)|(?<=는데)|(?<=은데)|(?<=인데)|(?<=었는데)|(?<=으나)"
    r"|(?=하지만)|(?=그런데)|(?=근데)|(?=다만)|(?=대신)"
)
CONTRAST: Final = re.compile(r"^\s*(?:하지만|그런데|근데|다만|그래도)")

ASPECT_WORDS: Final[dict[Aspect, tuple[str, ...]]] = {
    "food": (
        "맛", "음식", "메뉴", "국물", "고기", "면발", "반찬", "양이", "양도", "양은", "재료",
        "소스", "튀김", "밥", "치킨", "피자", "커피", "디저트", "회가", "육즙", "간이", "식감",
        "신선", "존맛", "먹", "짜", "싱겁", "질기", "바삭", "쫄깃", "jmt", "탕", "찌개", "파스타",
    ),
    "service": (
        "직원", "사장", "서비스", "친절", "알바", "응대", "주문", "불친절", "배달", "기사님",
        "포장", "서빙", "종업원", "이모님", "리뷰 이벤트", "나오는데", "누락", "태도",
    ),
    "atmosphere": (
        "분위기", "인테리어", "음악", "조명", "시끄", "조용", "뷰", "아늑", "좌석", "의자", "감성",
        "데이트", "테이블 간격", "넓", "좁", "전망",
    ),
    "price": (
        "가격", "가성비", "비싸", "비싼", "비쌈", "저렴", "싸고", "만원", "천원", "혜자", "창렬",
        "돈이", "돈을", "돈 아", "할인", "값", "원에",
    ),
    "hygiene": (
        "위생", "깨끗", "청결", "더럽", "더러", "지저분", "벌레", "머리카락", "이물질", "화장실",
        "끈적", "곰팡", "바퀴",
    ),
    "access": (
        "주차", "웨이팅", "대기", "줄 서", "줄서", "예약", "위치", "역에서", "골목", "찾기",
        "영업시간", "브레이크", "휴무", "발렛", "접근",
    ),
}  # fmt: skip

EMOTION_WORDS: Final[dict[Emotion, tuple[str, ...]]] = {
    "joy": ("행복", "존맛", "신나", "최고", "기분 좋", "즐거", "jmt", "대박", "😍", "😋", "🥰"),
    "gratitude": ("감사", "고맙", "감동", "고마"),
    "anticipation": ("또 갈", "또 올", "또갈", "재방문", "다음에", "다음엔", "기대되", "또 가고"),
    "surprise": ("깜짝", "헐", "놀랐", "놀람", "이 가격에", "의외", "충격", "😱"),
    "disappointment": ("실망", "아쉽", "아쉬", "기대했", "예전만", "기대 이하", "변했"),
    "sadness": ("슬프", "속상", "눈물", "서럽", "우울", "😭", "😢"),
    "anger": ("짜증", "화가", "화나", "어이없", "어이가", "열받", "빡", "😡", "😤"),
    "disgust": ("더럽", "더러", "역하", "역겹", "벌레", "토할", "불쾌", "비위", "🤮", "🤢"),
}  # fmt: skip

_STEMS: Final = re.compile(
    "|".join(re.escape(stem) for stem in sorted(POLARITY, key=lambda s: (-len(s), s)))
)


def clauses(text: str) -> list[str]:
    """A text in clauses, cut at punctuation and contrasting endings."""
    return [part for part in CLAUSE_END.split(text.lower()) if part and part.strip()]


def clause_score(clause: str) -> float:
    """Sum of the clause's weights, each turned round by a negation next to it."""
    total = 0.0
    for match in _STEMS.finditer(clause):
        weight = POLARITY[match.group()]
        before = NEGATION_BEFORE.search(clause[: match.start()])
        after = NEGATION_AFTER.search(clause[match.end() :])
        # "나쁘지 않" and "안 갈" hold their negation already; turned praise is complaint, but
        # turned complaint is only faint praise.
        if (before is None) == (after is None):
            total += weight
        else:
            total += -weight if weight > 0 else -0.4 * weight
    return total


def text_score(text: str) -> float:
    """Sum over clauses; what follows a contrast weighs more."""
    return sum(
        clause_score(part) * (1.4 if CONTRAST.search(part) else 1.0) for part in clauses(text)
    )


def aspect_scores(text: str) -> dict[Aspect, list[float]]:
    """For each aspect spoken of, the scores of the clauses that speak of it."""
    found: dict[Aspect, list[float]] = {}
    for part in clauses(text):
        for aspect, words in ASPECT_WORDS.items():
            if any(word in part for word in words):
                found.setdefault(aspect, []).append(clause_score(part))
    return found
