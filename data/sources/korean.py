"""Korean word forms: particles by final consonant, and predicates by ending.

What comes in is a noun, or a predicate as a dictionary lists it ("맵다", "간이 딱 맞다"); what
goes out is its surface form ("매워요"). Covers the irregular classes that restaurant reviews use:
ㅂ, ㅅ, ㄷ, ㅎ, 르, 으, ㄹ, 하다, the honorific 시, 아니다 and the copula 이다.
"""

from typing import Final, Literal, get_args

Ending = Literal[
    "어", "어요", "네", "네요", "더라", "더라고요", "더라구요", "습니다", "다", "음", "고", "지만",
    "는데", "긴 한데", "었어", "었어요", "었네", "었네요", "었습니다", "었다", "었음", "었고",
    "었지만", "었는데",
]  # fmt: skip
ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)

_FIRST: Final = 0xAC00
_LAST: Final = 0xD7A3
_NIEUN, _RIEUL, _RIEUL_MIEUM, _MIEUM, _BIEUP = 4, 8, 10, 16, 17
_DIGEUT, _SIOT, _SSANG_SIOT, _HIEUH = 7, 19, 20, 27
_A, _AE, _YA, _EO, _E, _YEO, _O, _WA, _WAE, _OE, _U, _WO, _EU, _I = (
    0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 13, 14, 18, 20,
)  # fmt: skip
_CONTRACTED: Final = {_O: _WA, _U: _WO, _OE: _WAE, _I: _YEO}

_REGULAR_BIEUP: Final = ("좁", "입", "잡", "씹", "뽑", "집", "접", "업", "꼽")
_IRREGULAR_SIOT: Final = ("낫", "짓", "붓", "젓", "잇", "긋")
_IRREGULAR_DIGEUT: Final = ("듣", "걷", "싣", "깨닫", "붇", "긷")
_REGULAR_HIEUH: Final = ("좋", "놓", "넣", "쌓", "낳", "닿", "찧")
_REGULAR_REU: Final = ("들르", "치르", "따르", "우러르")
_PLAIN_SI: Final = ("마시", "눈부시", "모시", "부시")
_VERBS_IN_I: Final = (
    "보이", "끓이", "줄이", "쓰이", "트이", "쌓이", "붙이", "먹이", "들이", "높이", "배이",
)  # fmt: skip
_VERBS: Final = (
    "맞다", "나다", "되다", "걸리다", "가다", "보이다", "차다", "끊기다", "떨어지다", "어울리다",
    "울리다", "들다", "트이다", "끝내주다", "미치다", "안심되다", "걱정되다", "헷갈리다",
    "물리다", "배다", "비우다", "주시다", "쓰시다", "당기다", "살다", "고민되다", "남다",
)  # fmt: skip
_ADJECTIVES: Final = (
    "많다", "질기다", "좋다", "아니다", "힘들다", "춥다", "덥다", "싶다", "같다", "쉽다",
    "어렵다", "낫다", "없다", "비싸다", "싸다", "적다", "크다", "작다", "멀다", "길다", "짧다",
    "불편하다", "편하다", "평범하다", "무난하다", "쏘쏘하다", "더부룩하다", "만하다",
    "바르다", "빠르다",
)  # fmt: skip
# How letters and digits that end a word are read aloud: with a final consonant, or without.
_CLOSED_SIGNS: Final = frozenset("lmnrLMNR013678")


def _parts(syllable: str) -> tuple[int, int, int]:
    """Lead, vowel and final consonant of one Hangul syllable, as indices of Unicode's tables."""
    number = ord(syllable) - _FIRST
    return number // 588, number % 588 // 28, number % 28


def _syllable(lead: int, vowel: int, final: int) -> str:
    return chr(_FIRST + (lead * 21 + vowel) * 28 + final)


def _with_final(word: str, final: int) -> str:
    lead, vowel, _ = _parts(word[-1])
    return word[:-1] + _syllable(lead, vowel, final)


def final_consonant(word: str) -> int:
    """The final consonant that a word ends in, as Unicode's index; 0 where it ends in a vowel."""
    last = word.rstrip(">")[-1]  # a slot such as "<원>" is named after what its fillings end in
    if _FIRST <= ord(last) <= _LAST:
        return _parts(last)[2]
    return 1 if last in _CLOSED_SIGNS else 0


def particle(word: str, pair: str) -> str:
    """A noun with its particle: ``particle("국물", "이/가")`` is "국물이"."""
    closed, open_ = pair.split("/")
    return word + (closed if final_consonant(word) else open_)


def is_copula(word: str) -> bool:
    """Whether a form is a noun with 이다 ("별로이다") and no verb in -이다 ("보이다")."""
    return word.endswith("이다") and not word[:-1].endswith(_VERBS_IN_I)


def is_adjective(word: str, *, default: bool) -> bool:
    """Whether a predicate is conjugated as an adjective; ``default`` where the word is unlisted."""
    last = word.rsplit(" ", 1)[-1]
    if last.endswith("거리다") or last in _VERBS:
        return False
    return last in _ADJECTIVES or default


def _irregular(stem: str) -> str:
    """Which irregular class a stem is of: one of ㅂ, ㅅ, ㄷ, ㅎ, 르, or empty."""
    final = _parts(stem[-1])[2]
    checks = (
        ("ㅂ", final == _BIEUP and not stem.endswith(_REGULAR_BIEUP)),
        ("ㅅ", stem.endswith(_IRREGULAR_SIOT)),
        ("ㄷ", stem.endswith(_IRREGULAR_DIGEUT)),
        ("ㅎ", final == _HIEUH and not stem.endswith(_REGULAR_HIEUH)),
        ("르", stem[-1] == "르" and not stem.endswith(_REGULAR_REU)),
    )
    return next((name for name, holds in checks if holds), "")


def _harmonic(vowel: int, bright: str, dark: str) -> str:
    return bright if vowel in {_A, _YA, _O} else dark


def _irregular_infinitive(stem: str, kind: str) -> str:
    lead, vowel, _ = _parts(stem[-1])
    match kind:
        case "ㅂ":
            return _with_final(stem, 0) + ("와" if stem[-1] in "돕곱" else "워")
        case "ㅅ":
            return _with_final(stem, 0) + _harmonic(vowel, "아", "어")
        case "ㄷ":
            return _with_final(stem, _RIEUL) + _harmonic(vowel, "아", "어")
        case "ㅎ":
            return stem[:-1] + _syllable(lead, _AE, 0)
        case _:
            before = _parts(stem[-2])[1]
            return _with_final(stem[:-1], _RIEUL) + _harmonic(before, "라", "러")


def _open_infinitive(stem: str) -> str:
    """A stem that ends in a vowel flows into 아/어: "크" is "커", "오" is "와"."""
    lead, vowel, _ = _parts(stem[-1])
    if vowel == _EU:
        known = len(stem) > 1 and _FIRST <= ord(stem[-2]) <= _LAST
        before = _parts(stem[-2])[1] if known else _EO
        return stem[:-1] + _syllable(lead, _A if before in {_A, _O} else _EO, 0)
    if vowel in {_A, _AE, _EO, _E, _YEO}:
        return stem
    if vowel in _CONTRACTED and not stem.endswith("아니"):
        return stem[:-1] + _syllable(lead, _CONTRACTED[vowel], 0)
    return stem + "어"


def infinitive(stem: str) -> str:
    """The stem with 아/어: "맵" is "매워", "느리" is "느려", "하" is "해"."""
    if stem.endswith("하"):
        return stem[:-1] + "해"
    if kind := _irregular(stem):
        return _irregular_infinitive(stem, kind)
    _, vowel, final = _parts(stem[-1])
    return stem + _harmonic(vowel, "아", "어") if final else _open_infinitive(stem)


def _softened(stem: str, final: int) -> str:
    """The stem before 으: with ㄴ, ㅁ or the like as its final, or with 은, 음 after it."""
    tail = _parts(stem[-1])[2]
    kind = _irregular(stem)
    if kind == "ㅂ":
        return _with_final(_with_final(stem, 0) + "우", final)
    if kind in {"ㅅ", "ㄷ"}:
        bare = _with_final(stem, 0 if kind == "ㅅ" else _RIEUL)
        return bare + _with_final("으", final)
    if not tail or kind == "ㅎ":
        return _with_final(stem, final)
    if tail == _RIEUL:
        return _with_final(stem, _RIEUL_MIEUM if final == _MIEUM else final)
    return stem + _with_final("으", final)


def _present(stem: str, ending: str, *, adjective: bool) -> str:
    open_or_rieul = _parts(stem[-1])[2] in {0, _RIEUL}
    fixed = stem.endswith(("있", "없", "겠"))
    if ending == "습니다":
        return _with_final(stem, _BIEUP) + "니다" if open_or_rieul else stem + "습니다"
    if ending == "음":
        return _softened(stem, _MIEUM)
    if ending == "는데" and adjective and not fixed:
        return _softened(stem, _NIEUN) + "데"
    if ending == "다" and not adjective and not fixed:
        return _with_final(stem, _NIEUN) + "다" if open_or_rieul else stem + "는다"
    if ending in {"네", "네요", "는데"} and _parts(stem[-1])[2] == _RIEUL:
        return _with_final(stem, 0) + ending
    return stem + ending


def conjugate(word: str, ending: Ending, *, adjective: bool) -> str:
    """A predicate with an ending: ``conjugate("맵다", "어요", adjective=True)`` is "매워요".

    Args:
        word: a predicate or a phrase that ends in one; one in 이다 is taken for the copula
            unless it is a verb that ends so.
        ending: named by its form after a dark vowel.
        adjective: adjectives and verbs part ways before 는데 and 다.
    """
    if is_copula(word):
        return copula(word[:-2], ending)
    stem = word[:-1]
    if ending.startswith("었"):
        root = stem + "어" if stem.endswith("아니") else infinitive(stem)
        return _with_final(root, _SSANG_SIOT) + ending[1:]
    if ending == "어요" and stem.endswith("아니"):
        return stem + "에요"
    if ending == "어요" and stem.endswith("시") and not stem.endswith(_PLAIN_SI):
        return stem[:-1] + "세요"
    if ending in {"어", "어요"}:
        return infinitive(stem) + ending[1:]
    return _present(stem, ending, adjective=adjective)


def copula(noun: str, ending: Ending) -> str:
    """A noun with 이다 and an ending: "최고예요", "존맛이에요", "최고였는데"."""
    closed = bool(final_consonant(noun))
    if ending == "어요":
        return noun + ("이에요" if closed else "예요")
    if ending == "어":
        return noun + ("이야" if closed else "야")
    if ending in {"습니다", "음", "는데"}:
        return noun + {"습니다": "입니다", "음": "임", "는데": "인데"}[ending]
    if ending.startswith("었"):
        return noun + ("이었" if closed else "였") + ending[1:]
    if ending == "긴 한데":
        return noun + ("이긴 한데" if closed else "긴 한데")
    return noun + ("이" if closed else "") + ending
