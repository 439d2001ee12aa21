"""Slips of the thumb and decoration, put on a review whose label is already known.

A review comes in as pieces (text, and which evidence it is, if any) and goes out as pieces, so that
evidence keeps its place whatever happens to the letters.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from data.contract import Phenomenon
from data.sources.synthetic_lexicon import Lexicon

Piece = tuple[str, int | None]
"""A part of the text, and the index of the evidence that it is; None for the rest."""

_SLIPS: Final[tuple[tuple[str, str], ...]] = (
    ("맛있", "맛잇"), ("있어", "잇어"), ("있음", "잇음"), ("있", "잇"), ("않", "안"),
    ("안 ", "않 "), ("돼", "되"), ("됐", "됬"), ("되어", "돼어"), ("했", "햇"), ("었", "엇"),
    ("았", "앗"), ("갔", "갓"), ("왔", "왓"), ("많", "만"), ("괜찮", "괜찬"), ("괜찮", "갠찮"),
    ("좋", "조"), ("좋아", "조아"), ("없", "업"), ("너무", "넘"), ("너무", "너뮤"),
    ("진짜", "진자"), ("진짜", "찐짜"), ("정말", "증말"), ("엄청", "엄천"), ("네요", "내요"),
    ("네요", "네여"), ("어요", "어여"), ("예요", "에요"), ("이에요", "이예요"),
    ("습니다", "습니당"), ("습니다", "슴니다"), ("습니다", "습니디"), ("게", "개"), ("데", "대"),
    ("왜", "외"), ("찌개", "찌게"), ("떡볶이", "떡볶기"), ("육개장", "육계장"),
    ("돈까스", "돈가스"), ("깍두기", "깎두기"), ("김치찌개", "김치찌게"), ("삼겹살", "삼겹쌀"),
    ("생각보다", "생각보당"), ("친절", "칭절"), ("친절하", "친절허"), ("굉장히", "굉장희"),
    ("깨끗", "깨끝"), ("조금", "쪼금"), ("금방", "금방방"), ("별로", "별루"), ("근데", "근대"),
    ("그런데", "그런대"), ("오랜만", "오랫만"), ("더라고요", "드라구요"),
    ("더라구요", "더라구여"), ("고기", "고가"), ("사장님", "사장밈"), ("음식", "음삭"),
    ("가격", "가걱"), ("배달", "배댤"), ("재료", "제료"), ("배부", "베부"), ("빨리", "빨이"),
    ("맵", "맴"), ("만족", "만좍"), ("추천", "츄천"), ("싶", "십"), ("찮", "찬"),
    ("웨이팅", "왜이팅"), ("계산", "게산"), ("오히려", "오이려"), ("며칠", "몇일"),
    ("가게", "가개"), ("메뉴", "매뉴"),
)  # fmt: skip
_STRETCHED: Final[tuple[tuple[str, str], ...]] = (
    ("요", "요오"), ("요", "요오오"), ("요", "용"), ("다", "다아"), ("다", "당"), ("네", "네에"),
    ("요", "여"), ("요", "욤"), ("음", "으음"), ("굿", "구우웃"), ("네요", "네요오"),
)  # fmt: skip
_FIRST: Final = 0xAC00
_LAST: Final = 0xD7A3
# ㅐ and ㅔ, ㅓ and ㅏ and their like lie side by side on the keyboard or in the ear
_NEAR_VOWELS: Final = {1: 5, 5: 1, 0: 20, 4: 8, 8: 12, 13: 17, 18: 13, 20: 0, 10: 15, 11: 10}
_TYPO, _SPACING, _DECORATED, _STRETCH = 0.11, 0.10, 0.34, 0.06


def _jamo_slip(text: str, rng: Random) -> str:
    """Drop a final consonant, or slip to a neighbouring vowel, in one syllable."""
    place = int(rng.random() * max(1, len(text) - 1))  # the last syllable carries the ending
    number = ord(text[place]) - _FIRST
    if not 0 <= number <= _LAST - _FIRST:
        return text
    final, vowel = number % 28, number % 588 // 28
    if final and rng.random() < 0.5:  # noqa: PLR2004  # a coin
        slipped = number - final
    elif vowel in _NEAR_VOWELS:
        slipped = number + (_NEAR_VOWELS[vowel] - vowel) * 28
    else:
        return text + text[-1] if text[-1] in "요다네" else text
    return text[:place] + chr(_FIRST + slipped) + text[place + 1 :]


def _misspelled(text: str, rng: Random) -> str:
    start = int(rng.random() * len(_SLIPS))
    for step in range(len(_SLIPS)):
        right, wrong = _SLIPS[(start + step) % len(_SLIPS)]
        if right in text:
            return text.replace(right, wrong, 1)
    return _jamo_slip(text, rng)


def _spaceless(text: str, rng: Random) -> str:
    return text.replace(" ", "") if rng.random() < 0.7 else text.replace(" ", "", 1)  # noqa: PLR2004  # mostly all


def _stretched(text: str, rng: Random) -> str:
    start = int(rng.random() * len(_STRETCHED))
    for step in range(len(_STRETCHED)):
        plain, long = _STRETCHED[(start + step) % len(_STRETCHED)]
        if text.endswith(plain):
            return text[: -len(plain)] + long
    return text


def _each(pieces: list[Piece], change: Callable[[str, Random], str], rng: Random) -> list[Piece]:
    changed = [(change(text, rng), evidence) for text, evidence in pieces]
    return [piece for piece in changed if piece[0]]


def _some(pieces: list[Piece], change: Callable[[str, Random], str], rng: Random) -> list[Piece]:
    """One piece changed, and the others now and then."""
    chosen = int(rng.random() * len(pieces))
    return [
        (change(text, rng), evidence) if place == chosen or rng.random() < 0.2 else (text, evidence)  # noqa: PLR2004  # now and then
        for place, (text, evidence) in enumerate(pieces)
    ]


def roughen(
    pieces: list[Piece], *, mood: str, lexicon: Lexicon, rng: Random
) -> tuple[list[Piece], list[Phenomenon]]:
    """Add what thumbs do to a text; returns the pieces and what happened, for the label.

    Args:
        pieces: the review; joined, they are its text.
        mood: whose marks go with it: "positive", "neutral", "negative" or "sarcasm".
        lexicon: holds the marks.
        rng: the only source of chance.
    """
    happened: list[Phenomenon] = []
    before = [piece[0] for piece in pieces]
    if rng.random() < _STRETCH:
        pieces = _some(pieces, _stretched, rng)
    unslipped = [piece[0] for piece in pieces]
    if rng.random() < _TYPO:
        pieces = _some(pieces, _misspelled, rng)
        if [piece[0] for piece in pieces] != unslipped:
            happened.append("typo")
    if rng.random() < _SPACING and sum(text.count(" ") for text in before) > 1:
        pieces = _each(pieces, _spaceless, rng)
        happened.append("spacing")
    if rng.random() < _DECORATED:
        marks = lexicon.marks[mood]
        mark = marks[int(rng.random() * len(marks))]
        ends = [place for place, piece in enumerate(pieces) if piece[0].startswith((".", "!", "~"))]
        if ends and rng.random() < 0.3:  # noqa: PLR2004  # mostly at the very end
            place = ends[int(rng.random() * len(ends))]
            pieces = [*pieces[:place], (mark, None), *pieces[place + 1 :]]
        else:
            gap = " " if rng.random() < 0.4 else ""  # noqa: PLR2004  # mostly stuck to the word
            pieces = [*pieces, (gap + mark, None)]
        happened.append("emoji")
    return pieces, happened
