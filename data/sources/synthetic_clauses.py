"""What a made-up review speaks of: its clauses, drawn to lean one way.

A leaning and a number of clauses come in; clauses with subject, adverb and signed points go out.
"""

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final, TypeVar

from data.contract import Aspect, Intensity, Phenomenon, Polarity
from data.sources.synthetic_lexicon import Lexicon, Phrase
from data.sources.synthetic_sheet import SIGN, Bucket, Register

T = TypeVar("T")
POLARITY: Final[dict[int, Polarity]] = {sign: polarity for polarity, sign in SIGN.items()}
LONG: Final = 6
"""From this many clauses on a review is a long one and may return to an aspect."""

# Which share of clauses speaks of what, at a table, for facts, in anger, and of brought food.
_SHARES: Final[Mapping[str, Mapping[Aspect, int]]] = {
    "table": {"food": 52, "service": 17, "atmosphere": 12, "price": 12, "hygiene": 6, "access": 11},
    "facts": {"food": 28, "service": 14, "atmosphere": 12, "price": 16, "hygiene": 7, "access": 28},
    "anger": {"food": 42, "service": 22, "atmosphere": 7, "price": 9, "hygiene": 18, "access": 9},
    "brought": {"food": 60, "service": 26, "price": 14},
}
_TABLES: Final = {
    name: (tuple(shares), tuple(accumulate(shares.values()))) for name, shares in _SHARES.items()
}
# By leaning: how likely a clause is a strong one, and is raised or hedged by an adverb.
_STRONG: Final[dict[int, float]] = {-2: 0.62, -1: 0.06, 0: 0.0, 1: 0.0, 2: 0.38}
_RAISED: Final[dict[int, float]] = {-2: 0.55, -1: 0.25, 0: 0.0, 1: 0.05, 2: 0.62}
_HEDGED: Final[dict[int, float]] = {-2: 0.05, -1: 0.38, 0: 0.25, 1: 0.36, 2: 0.10}
_OTHER_SIDE: Final[dict[int, float]] = {-2: 0.14, -1: 0.30, 0: 0.0, 1: 0.30, 2: 0.15}
_SARCASM, _DENIED, _FACT, _QUESTION, _BALANCED = 0.15, 0.07, 0.07, 0.18, 0.5
_SLANG, _TRIES, _LONGEST_PREFIXED, _SAID_OF_MANY = 0.16, 6, 5, 120


@dataclass(frozen=True, slots=True)
class Clause:
    """A phrase with what stands before it, and what it weighs."""

    phrase: Phrase
    aspect: Aspect
    subject: str
    adverb: str
    points: float
    slang: bool

    @property
    def sign(self) -> int:
        """-1, 0 or 1."""
        return SIGN[self.phrase.polarity]

    def written(self, form: str) -> str:
        """The clause with its last word in a form of the phrase's."""
        return f"{self.subject}{self.phrase.head}{self.adverb}{form}"

    def phenomena(self) -> tuple[Phenomenon, ...]:
        """What the words themselves show."""
        return (*self.phrase.phenomena, "slang") if self.slang else self.phrase.phenomena


def pick(options: Sequence[T], rng: Random) -> T:
    """One of several, each as likely; three times as fast as ``Random.choice``."""
    return options[int(rng.random() * len(options))]


def weighted(options: Sequence[T], upto: Sequence[float], rng: Random) -> T:
    """One of several by running totals of their weights."""
    return options[bisect(upto, rng.random() * upto[-1])]


def _signs(leaning: Intensity, count: int, rng: Random) -> list[int]:
    if leaning == 0:
        if count > 1 and rng.random() < _BALANCED:
            first = 1 if rng.random() < 0.5 else -1  # noqa: PLR2004  # a coin
            return [first if place % 2 == 0 else -first for place in range(count - count % 2)]
        return [0] * count
    sign = 1 if leaning > 0 else -1
    signs = [sign] * count
    if count > 1:
        if rng.random() < _OTHER_SIDE[leaning]:
            signs[int(rng.random() * count)] = -sign
        kept = int(rng.random() * count)
        signs = [
            0 if place != kept and rng.random() < _FACT else one for place, one in enumerate(signs)
        ]
    return signs


def _bucket(sign: int, leaning: Intensity, rng: Random) -> Bucket:
    chance = rng.random()
    if sign == 0:
        return "question" if leaning == 0 and chance < _QUESTION else "fact"
    if sign * leaning > 0 and chance < _STRONG[leaning]:
        return "strong"
    return "denied" if chance > 1 - _DENIED else "mild"


def _adverb(
    phrase: Phrase, leaning: Intensity, register: Register, lexicon: Lexicon, rng: Random
) -> tuple[str, float, bool]:
    """An adverb with its space, the points with it, and whether it is slang."""
    points, adverbs, chance = phrase.points, lexicon.adverbs, rng.random()
    if phrase.degree == "none":
        return "", points, False
    if phrase.degree == "denial":
        return (f"{pick(adverbs['denial'], rng)} " if chance < _HEDGED[1] else ""), points, False
    # what leans the other way is said mildly
    leans = leaning if leaning * points > 0 else 0
    if chance < _RAISED[leans]:
        raised = max(abs(points), 2.0) * (1 if points > 0 else -1)
        if phrase.degree == "sentence":
            return f"{pick(adverbs['sentence'], rng)} ", raised, False
        if register in {"plain", "eum"} and rng.random() < _SLANG:
            if phrase.degree == "prefix" and len(phrase.word) <= _LONGEST_PREFIXED:
                return pick(adverbs["prefix"], rng), raised, True
            return f"{pick(adverbs['slang'], rng)} ", raised, True
        return f"{pick(adverbs['strong'], rng)} ", raised, False
    if chance < _RAISED[leans] + _HEDGED[leans] and phrase.degree != "sentence":
        return f"{pick(adverbs['praise' if points > 0 else 'blame'], rng)} ", points, False
    return "", points, False


def _subject(phrase: Phrase, rng: Random, *, again: bool, contrast: bool) -> str:
    if not phrase.subjects:
        return ""
    omitted = 0.5 if phrase.owns_subject else 0.3
    # "연하다" is praise of meat and blame of coffee: narrow words keep their subject
    clear = phrase.owns_subject or len(phrase.subjects) > _SAID_OF_MANY
    if phrase.aspect == "food" and clear and not again and rng.random() < omitted:
        return ""
    subject, topic, also, bare = pick(phrase.subjects, rng)
    chance = rng.random()
    if phrase.owns_subject:
        return topic if chance < 0.65 else bare  # noqa: PLR2004  # of two, the topic more often
    if contrast:
        return topic if chance < 0.7 else bare  # noqa: PLR2004  # contrast asks for a topic
    if chance < 0.40:  # noqa: PLR2004  # shares of the particles
        return subject
    if chance < 0.70:  # noqa: PLR2004
        return topic
    return also if again and chance < 0.85 else bare  # noqa: PLR2004


def draw_clauses(
    leaning: Intensity,
    count: int,
    *,
    delivered: bool,
    register: Register,
    lexicon: Lexicon,
    rng: Random,
) -> list[Clause]:
    """Draw what a review says, clause by clause.

    Args:
        leaning: which way it should lean; what comes out may lean a little otherwise.
        count: clauses wanted; fewer where no fitting one was found.
        delivered: brought food is not spoken of as if eaten at a table.
        register: bounds which adverbs fit.
        lexicon: the phrases.
        rng: the only source of chance.
    """
    signs = _signs(leaning, count, rng)
    contrast = 1 in signs and -1 in signs
    sarcastic = int(rng.random() * count) if leaning < 0 and rng.random() < _SARCASM else -1
    limit = 2 if count >= LONG else 1
    spoken: dict[Aspect, list[int]] = {}
    words: set[str] = set()
    clauses: list[Clause] = []
    for place, sign in enumerate(signs):
        bucket: Bucket = "sarcasm" if place == sarcastic else _bucket(sign, leaning, rng)
        polarity = "negative" if bucket == "sarcasm" else POLARITY[sign]
        shares = "brought" if delivered else "anger" if leaning == -2 and sign < 0 else "table"  # noqa: PLR2004  # the scale's end
        table = _TABLES["facts" if sign == 0 and not delivered else shares]
        for _ in range(_TRIES):
            aspect = weighted(*table, rng)
            before = spoken.get(aspect, [])
            room = count if aspect == "food" and count >= LONG else limit + (aspect == "food")
            if len(before) >= room or (aspect != "food" and -SIGN[polarity] in before):
                continue
            pool = lexicon.clauses.get((delivered, aspect, polarity, bucket))
            phrase = pick(
                pool or lexicon.clauses[delivered, aspect, polarity, "mild" if sign else "fact"],
                rng,
            )
            if phrase.word in words:
                continue
            adverb, points, slang = _adverb(phrase, leaning, register, lexicon, rng)
            subject = _subject(phrase, rng, again=bool(before), contrast=contrast)
            clauses.append(Clause(phrase, aspect, subject, adverb, points, slang))
            spoken.setdefault(aspect, []).append(SIGN[polarity])
            words.add(phrase.word)
            break
    return clauses
