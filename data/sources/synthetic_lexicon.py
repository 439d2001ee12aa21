"""The generator's word material, read from synthetic_phrases.yaml and conjugated once.

What comes in is the YAML file beside this module; what goes out is a ``Lexicon`` of phrases whose
surface forms are all made, so that writing a review is picking strings.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal, get_args

from data.contract import Aspect, Emotion, Phenomenon, Polarity
from data.sources.korean import (
    Ending,
    conjugate,
    copula,
    is_adjective,
    is_copula,
    particle,
)
from data.sources.synthetic_sheet import (
    ANDS,
    BUTS,
    FINALS,
    REGISTERS,
    SIGN,
    Bucket,
    Group,
    Kind,
    Register,
    Sheet,
    read_sheet,
)

_ADVERB_LIKE: Final = frozenset([
    "너무", "진짜", "정말", "완전", "많이", "하나도", "전혀", "확", "그냥", "다", "죄다", "제일",
    "잘", "딱", "꽉", "훨씬", "자꾸", "역시", "좀", "안", "별로", "더", "조금", "그닥", "못",
    "나름", "꽤", "생각보다", "기대보다",
])  # fmt: skip

Subjects = tuple[tuple[str, str, str, str], ...]
"""Each subject with 이/가, 은/는, 도 and bare, a space after it."""


@dataclass(frozen=True, slots=True, eq=False)
class Phrase:
    """One thing that a review can say, in every form that it can take.

    ``head`` stands before the adverb's place and the conjugated rest after it. ``points`` are
    signed: positive for praise.
    """

    word: str
    aspect: Aspect | None
    polarity: Polarity
    points: float
    emotions: tuple[Emotion, ...]
    phenomena: tuple[Phenomenon, ...]
    head: str
    finals: dict[Register, tuple[str, ...]]
    ands: tuple[str, ...]
    buts: tuple[str, ...]
    degree: Literal["none", "sentence", "full", "prefix", "denial"]
    subjects: Subjects
    owns_subject: bool
    delivery: Literal["either", "only", "never"]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Phrases by where they are used."""

    clauses: dict[tuple[bool, Aspect, Polarity, Bucket], tuple[Phrase, ...]]
    overall: dict[int, tuple[Phrase, ...]]
    emotions: dict[tuple[Emotion, Polarity], tuple[Phrase, ...]]
    shorts: dict[int, tuple[Phrase, ...]]
    openers: dict[bool, tuple[Phrase, ...]]
    hopes: tuple[Phrase, ...]
    when: tuple[str, ...]
    whom: tuple[str, ...]
    adverbs: dict[str, tuple[str, ...]]
    connectors: dict[str, tuple[str, ...]]
    marks: dict[str, tuple[str, ...]]
    slots: dict[str, tuple[str, ...]]


def _forms(tail: str, kind: Kind, endings: tuple[Ending, ...]) -> tuple[str, ...]:
    if kind == "n":
        return tuple(copula(tail, ending) for ending in endings)
    adjective = is_adjective(tail, default=kind == "a")
    # "구워 주세요" would read as a request, "못 하겠었어요" is no word
    requests = tail.endswith("시다") and not adjective and not tail.endswith("눈부시다")
    never = {"어요"} if requests else set()
    kept = tuple(ending for ending in endings if ending not in never)
    if tail.endswith("겠다"):
        kept = tuple(ending for ending in kept if not ending.startswith("었"))
    return tuple(conjugate(tail, ending, adjective=adjective) for ending in kept or ("네요",))


def _owns_subject(words: list[str]) -> bool:
    return any(
        word.endswith(("이", "가", "은", "는", "도", "만", "밖에")) and word not in _ADVERB_LIKE
        for word in words
    )


def _degree(group: Group, word: str) -> Literal["none", "sentence", "full", "prefix"]:
    tokens = word.replace("*", "").split()
    if not group.degree or _ADVERB_LIKE & set(tokens):
        return "none"
    if "*" in word:
        return "full"
    return "prefix" if len(tokens) == 1 else "sentence"


def _phrase(group: Group, word: str, subjects: Subjects = ()) -> Phrase:
    word, *tags = word.split(" @")
    extra = tuple(tag for names in tags for tag in names.split(","))
    head, _, tail = word.rpartition("*")
    polarity = group.polarity or group.sign
    flags: tuple[tuple[Phenomenon, bool], ...] = (
        ("slang", group.slang), ("negation", group.negation), ("sarcasm", group.sarcasm),
    )  # fmt: skip
    fixed = group.kind == "f"
    kind = group.kind
    finals = {
        register: (tail,) if fixed else _forms(tail, kind, FINALS[kind][register])
        for register in REGISTERS
    }
    if kind == "n":
        finals["eum"] = (*finals["eum"], tail, tail)
        finals["plain"] = (*finals["plain"], tail)
    emotions = [*group.emotions, *([group.emotion] if group.emotion else []), *extra]
    sign = SIGN[polarity] if group.aspect or group.emotion else 1
    return Phrase(
        word=word.replace("*", ""),
        aspect=group.aspect,
        polarity=polarity,
        points=sign * group.points if sign else 0.0,
        emotions=_checked(emotions),
        phenomena=tuple(name for name, holds in flags if holds),
        head=head,
        finals=finals,
        ands=() if fixed else _forms(tail, kind, ANDS[kind]),
        buts=() if fixed else _forms(tail, kind, BUTS[kind]),
        degree=_degree(group, word),
        subjects=subjects,
        owns_subject=_owns_subject(word.replace("*", "").split()[:-1]),
        delivery=group.delivery,
    )


def _checked(names: list[str]) -> tuple[Emotion, ...]:
    emotions = get_args(Emotion)
    if unknown := [name for name in names if name not in emotions]:
        raise ValueError(f"unknown emotions {unknown!r}; use one of {emotions!r}")
    return tuple(emotion for emotion in emotions if emotion in names)


def _denials(group: Group, phrase: Phrase) -> list[Phrase]:
    """Its denials, of the opposite polarity: "짜지 않다", "짜지는 않다", "안 짜다"."""
    stem = phrase.word[:-1]
    copular = is_copula(phrase.word)
    adjective = copular or is_adjective(phrase.word, default=group.kind == "a")
    default_kind: Kind = "a" if adjective else "v"
    words = [f"{stem}지 않다", f"{stem}지는 않다", f"{stem}지도 않다"]
    if len(stem) <= 2 and not stem.endswith("하"):  # noqa: PLR2004  # two syllables
        words.append(f"안 {phrase.word}")
    turned: Polarity = "negative" if phrase.polarity == "positive" else "positive"
    plain = group.model_copy(
        update={
            "kind": default_kind, "polarity": turned, "points": group.denied, "emotions": (),
            "negation": True, "slang": False, "degree": False,
        }
    )  # fmt: skip
    return [
        replace(
            _phrase(plain, word, phrase.subjects),
            degree="none" if word.startswith("안 ") or word.endswith("지도 않다") else "denial",
        )
        for word in words
    ]


def _bucket(phrase: Phrase) -> Bucket:
    if "sarcasm" in phrase.phenomena:
        return "sarcasm"
    if phrase.polarity == "neutral":
        return "question" if phrase.word.endswith("?") else "fact"
    return "strong" if abs(phrase.points) >= 2 else "mild"  # noqa: PLR2004  # "strong" begins there


def _subjects(sheet: Sheet, classes: tuple[str, ...]) -> Subjects:
    names = [one for name in classes for one in sheet.unions.get(name, (name,))]
    nouns = dict.fromkeys(noun for name in names for noun in sheet.subjects[name])
    return tuple(
        (f"{particle(noun, '이/가')} ", f"{particle(noun, '은/는')} ", f"{noun}도 ", f"{noun} ")
        for noun in nouns
    )


def _clauses(
    sheet: Sheet,
) -> dict[tuple[bool, Aspect, Polarity, Bucket], tuple[Phrase, ...]]:
    pools: dict[tuple[bool, Aspect, Polarity, Bucket], list[Phrase]] = defaultdict(list)
    for group in sheet.groups:
        if group.aspect is None:
            raise ValueError(f"group of {group.words[0]!r} has no aspect; give it one")
        subjects = _subjects(sheet, group.of)
        for word in group.words:
            phrase = _phrase(group, word, subjects)
            found = [(phrase, _bucket(phrase))]
            if group.denied:
                found += [(one, "denied") for one in _denials(group, phrase)]
            for one, bucket in found:
                for delivered in (False, True):
                    if phrase.delivery != ("never" if delivered else "only"):
                        pools[delivered, group.aspect, one.polarity, bucket].append(one)
    # brought food: no staff, no room; what is said of the service is said of the delivery
    for key, phrases in pools.items():
        if key[0] and key[1] == "service":
            phrases[:] = [phrase for phrase in phrases if phrase.delivery == "only"]
    return {key: tuple(phrases) for key, phrases in pools.items() if phrases}


def _by_intensity(groups: tuple[Group, ...]) -> dict[int, tuple[Phrase, ...]]:
    pools: dict[int, list[Phrase]] = defaultdict(list)
    for group in groups:
        weight = 3.0 if abs(group.intensity) == 2 else abs(group.intensity)  # noqa: PLR2004
        sign = 1 if group.intensity > 0 else -1
        pools[group.intensity] += [
            replace(_phrase(group, word), points=sign * weight) for word in group.words
        ]
    return {intensity: tuple(phrases) for intensity, phrases in pools.items()}


@cache
def lexicon() -> Lexicon:
    """All phrases with all their forms, made once a process."""
    sheet = read_sheet()
    emotions: dict[tuple[Emotion, Polarity], list[Phrase]] = defaultdict(list)
    for group in sheet.emotions:
        if group.emotion:
            emotions[group.emotion, group.sign] += [_phrase(group, word) for word in group.words]
    told = {False: sheet.openers["did"], True: sheet.openers["ordered"]}
    event, still = Group(kind="e", words=("가다",)), Group(words=("가다",))
    return Lexicon(
        clauses=_clauses(sheet),
        overall=_by_intensity(sheet.overall),
        emotions={key: tuple(phrases) for key, phrases in emotions.items()},
        shorts=_by_intensity(sheet.shorts),
        openers={key: tuple(_phrase(event, word) for word in words) for key, words in told.items()},
        hopes=tuple(_phrase(still, word) for word in sheet.openers["hoped"]),
        when=sheet.openers["when"],
        whom=sheet.openers["whom"],
        adverbs=sheet.adverbs,
        connectors=sheet.connectors,
        marks=sheet.marks,
        slots=sheet.slots | {"음식": tuple(s[3].strip() for s in _subjects(sheet, ("eaten",)))},
    )


SLOT: Final = re.compile(r"<([가-힣]+)>")
