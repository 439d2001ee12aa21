"""Made-up Korean restaurant reviews with labels, for load tests and for warming up an encoder.

A seed comes in, labelled reviews go out. They are templates, not diners' reviews: nobody ate
anything. They never are part of gold, of a test set or of any evaluation, and no number measured on
them says how well a model reads people. Their ids begin with "synthetic-" so that they can be told.

A review is drawn as a plan (how it leans, of how many clauses), written clause by clause, labelled
from what was written by the rules of data/gold/guideline.md, and only then roughened with slips.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Final

from data.contract import (
    Aspect,
    Emotion,
    Evidence,
    Intensity,
    Label,
    LabelledReview,
    Phenomenon,
    Polarity,
    Review,
    Sentiment,
    aspect_polarity,
)
from data.sources.synthetic_clauses import LONG, Clause, draw_clauses, pick, weighted
from data.sources.synthetic_lexicon import SLOT, Lexicon, Phrase, lexicon
from data.sources.synthetic_noise import Piece, roughen
from data.sources.synthetic_score import intensity_of
from data.sources.synthetic_sheet import REGISTERS, Register

_LEANINGS: Final[tuple[Intensity, ...]] = (-2, -1, 0, 1, 2)
_LEANING_UPTO: Final = tuple(accumulate((16, 20, 19, 22, 23)))
_COUNTS: Final = (0, 1, 2, 3, 4, 5, LONG)
_COUNT_UPTO: Final = tuple(accumulate((0.04, 0.32, 0.32, 0.15, 0.09, 0.06, 0.02)))
_LONG_SPREAD: Final = 10
_REGISTER_UPTO: Final = tuple(accumulate((52, 16, 15, 17)))
_DELIVERED, _SHORT, _OPENER, _HOPE = 0.2, 0.03, 0.32, 0.22
_OVERALL: Final[dict[int, float]] = {-2: 0.5, -1: 0.42, 0: 0.35, 1: 0.42, 2: 0.46}
_FELT: Final[dict[int, float]] = {-2: 0.45, -1: 0.22, 0: 0.0, 1: 0.16, 2: 0.42}
_JOINED, _CONNECTED, _CONTRASTED, _SUMMED, _FIRST_OVERALL = 0.6, 0.3, 0.8, 0.15, 0.2
_ENDS: Final = (
    ".", ".", ".", ".", ".", "", "", "", "!", "!", "!!", "~", "~~", "..", "...", "\n", "!!!",
)  # fmt: skip
_CLOSED: Final = ("?", "!", ".", "~")
_Feeling = tuple[Emotion, Polarity]
_FEELINGS: Final[dict[int, tuple[tuple[_Feeling, ...], tuple[int, ...]]]] = {
    2: (
        (("joy", "positive"), ("gratitude", "positive"), ("anticipation", "positive"),
         ("surprise", "positive"), ("sadness", "positive")),
        (35, 57, 83, 98, 100),
    ),
    1: (
        (("anticipation", "positive"), ("gratitude", "positive"), ("joy", "positive")),
        (45, 80, 100),
    ),
    -1: (
        (("disappointment", "negative"), ("sadness", "negative"), ("surprise", "negative")),
        (60, 85, 100),
    ),
    -2: (
        (("anger", "negative"), ("disgust", "negative"), ("sadness", "negative"),
         ("disappointment", "negative"), ("surprise", "negative")),
        (42, 66, 78, 91, 100),
    ),
}  # fmt: skip
_MARKED: Final[tuple[Emotion, ...]] = (
    "disgust", "anger", "sadness", "surprise", "gratitude", "joy",
)  # fmt: skip


@dataclass(slots=True)
class _Draft:
    """A review being written."""

    register: Register
    end: str
    pieces: list[Piece] = field(default_factory=list)
    evidence: list[tuple[Aspect, Polarity]] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    emotions: set[Emotion] = field(default_factory=set)
    phenomena: set[Phenomenon] = field(default_factory=set)
    overall: Intensity | None = None


def _told(text: str, words: Lexicon, rng: Random) -> str:
    if "<" not in text:
        return text
    return SLOT.sub(lambda slot: pick(words.slots[slot[1]], rng), text)


def _finish(draft: _Draft, rng: Random, *, gap: bool) -> None:
    last = draft.pieces[-1][0]
    if draft.end and not last.endswith(_CLOSED) and (gap or rng.random() < 0.75):  # noqa: PLR2004  # the last stop is often left out
        if draft.end != "\n":
            draft.pieces.append((draft.end, None))
        elif gap:
            draft.pieces.append(("\n", None))
            return
    if gap:
        draft.pieces.append((" ", None))


def _sentence(draft: _Draft, phrase: Phrase, words: Lexicon, rng: Random) -> None:
    """A sentence that is no aspect's evidence: an attitude or a feeling."""
    draft.pieces.append((_told(pick(phrase.finals[draft.register], rng), words, rng), None))
    draft.points.append(phrase.points)
    draft.emotions.update(phrase.emotions)
    draft.phenomena.update(phrase.phenomena)


def _open(draft: _Draft, leaning: Intensity, words: Lexicon, rng: Random, *, brought: bool) -> None:
    if leaning < 0 and not brought and rng.random() < _HOPE:
        hope = pick(words.hopes, rng)
        draft.emotions.update(hope.emotions)
        draft.pieces += [(hope.head + hope.word, None), (" ", None)]
        return
    phrase = pick(words.openers[brought], rng)
    parts = [pick(words.when, rng), "" if brought else pick(words.whom, rng)]
    lead = "".join(f"{part} " for part in parts if part)
    if rng.random() < _JOINED:
        draft.pieces += [(lead + phrase.buts[0], None), (" ", None)]
    else:
        draft.pieces.append((lead + pick(phrase.finals[draft.register], rng), None))
        _finish(draft, rng, gap=True)


def _write_clauses(draft: _Draft, clauses: list[Clause], words: Lexicon, rng: Random) -> None:
    joined = 0
    for place, clause in enumerate(clauses):
        phrase, following = clause.phrase, clauses[place + 1 : place + 2]
        turns = bool(following) and clause.sign * following[0].sign < 0
        forms = phrase.buts if turns else phrase.ands
        asks = bool(following) and following[0].phrase.word.endswith("?")
        joins = bool(following and forms) and not asks and joined < 2 and rng.random() < _JOINED  # noqa: PLR2004  # longer chains tire
        form = pick(forms if joins else phrase.finals[draft.register], rng)
        draft.pieces.append((_told(clause.written(form), words, rng), len(draft.evidence)))
        draft.evidence.append((clause.aspect, phrase.polarity))
        draft.points.append(clause.points)
        draft.emotions.update(phrase.emotions)
        draft.phenomena.update(clause.phenomena())
        joined = joined + 1 if joins else 0
        if joins:
            draft.pieces.append((" ", None))
        elif following:
            _finish(draft, rng, gap=True)
            if not asks and rng.random() < (_CONTRASTED if turns else _CONNECTED):
                word = pick(words.connectors["but" if turns else "and"], rng)
                draft.pieces.append((f"{word} ", None))


def _close(
    draft: _Draft, phrases: tuple[Phrase | None, Phrase | None], words: Lexicon, rng: Random
) -> None:
    """The feeling and the summing-up after the clauses, where there is one."""
    for place, phrase in enumerate(phrases):
        if phrase is None:
            continue
        if draft.points:
            _finish(draft, rng, gap=True)
            if place == 1 and phrase.ands and rng.random() < _SUMMED:
                draft.pieces.append((f"{pick(words.connectors['sum'], rng)} ", None))
        _sentence(draft, phrase, words, rng)
    _finish(draft, rng, gap=False)


def _write(draft: _Draft, leaning: Intensity, words: Lexicon, rng: Random) -> None:
    """Opener, clauses, feeling and summing-up, as the leaning asks."""
    brought = rng.random() < _DELIVERED
    count = weighted(_COUNTS, _COUNT_UPTO, rng)
    if count == LONG:
        count += int(rng.random() * _LONG_SPREAD)
    clauses = draw_clauses(
        leaning, count, delivered=brought, register=draft.register, lexicon=words, rng=rng
    )
    asked = any(clause.phrase.word.endswith("?") for clause in clauses)
    sums = not clauses or (not asked and rng.random() < _OVERALL[leaning])
    overall = pick(words.overall[leaning], rng) if sums else None
    told = any(clause.phrase.delivery == "only" for clause in clauses)
    if not clauses or (brought and not told) or rng.random() < _OPENER:
        _open(draft, leaning, words, rng, brought=brought)
    elif overall and rng.random() < _FIRST_OVERALL:
        _sentence(draft, overall, words, rng)
        _finish(draft, rng, gap=True)
        overall = None
    _write_clauses(draft, clauses, words, rng)
    _close(draft, (_feeling(draft, leaning, words, rng), overall), words, rng)
    signs = {clause.sign for clause in clauses}
    factual = signs == {0} and not sums and not any(draft.points)
    shown: tuple[tuple[Phenomenon, bool], ...] = (
        ("delivery", brought), ("mixed", {1, -1} <= signs), ("factual", factual),
    )  # fmt: skip
    draft.phenomena.update(name for name, holds in shown if holds)
    draft.overall = leaning if sums else None


def _feeling(draft: _Draft, leaning: Intensity, words: Lexicon, rng: Random) -> Phrase | None:
    if rng.random() >= _FELT[leaning]:
        return None
    feeling = weighted(*_FEELINGS[leaning], rng)
    unclean = any(aspect in {"hygiene", "food"} for aspect, _ in draft.evidence)
    if feeling[0] == "disgust" and not unclean:
        feeling = ("anger", "negative")
    return pick(words.emotions[feeling], rng)


def _mood(draft: _Draft, sentiment: Sentiment, rng: Random) -> str:
    """Whose marks fit: those of a feeling that was shown, or of the whole."""
    if "sarcasm" in draft.phenomena:
        return "sarcasm"
    shown = [emotion for emotion in _MARKED if emotion in draft.emotions]
    return shown[0] if shown and rng.random() < 0.6 else sentiment  # noqa: PLR2004  # more often than not


def _labelled(draft: _Draft, words: Lexicon, rng: Random) -> tuple[str, Label]:
    intensity = intensity_of(draft.points, draft.overall)
    sentiment: Sentiment = "positive" if intensity > 0 else "negative" if intensity else "neutral"
    mood = _mood(draft, sentiment, rng)
    pieces, happened = roughen(draft.pieces, mood=mood, lexicon=words, rng=rng)
    evidence: list[Evidence] = []
    polarities: dict[Aspect, set[Polarity]] = {}
    start = 0
    for text, index in pieces:
        if index is not None:
            aspect, polarity = draft.evidence[index]
            polarities.setdefault(aspect, set()).add(polarity)
            evidence.append(
                Evidence(
                    aspect=aspect, polarity=polarity, start=start, end=start + len(text), text=text
                )
            )
        start += len(text)
    return "".join(text for text, _ in pieces), Label(
        sentiment=sentiment,
        intensity=intensity,
        emotions=tuple(draft.emotions),
        aspects={aspect: aspect_polarity(signs) for aspect, signs in polarities.items()},
        evidence=tuple(evidence),
        phenomena=(*draft.phenomena, *happened),
    )


def generate(count: int, *, seed: int) -> Iterator[LabelledReview]:
    """Make labelled reviews up from templates, not diners' reviews; never for gold or evaluation.

    Equal seeds give equal reviews, whatever the count: a longer run begins with the shorter one.
    About two texts in a hundred are made twice, as people do write "굿".

    Args:
        count: how many; 0 gives none.
        seed: says which; it is part of the ids, "synthetic-{seed}-{n}" with n from 0.

    Yields:
        Reviews without restaurant or date, every task labelled, evidence verbatim.

    Raises:
        ValueError: ``count`` is negative.
    """
    if count < 0:
        raise ValueError(f"count is {count!r}; ask for 0 or more reviews")
    words = lexicon()
    rng = Random(seed)  # noqa: S311  # made-up reviews guard no secret
    for number in range(count):
        leaning = weighted(_LEANINGS, _LEANING_UPTO, rng)
        draft = _Draft(weighted(REGISTERS, _REGISTER_UPTO, rng), pick(_ENDS, rng))
        if rng.random() < _SHORT:
            _sentence(draft, pick(words.shorts[leaning], rng), words, rng)
            draft.overall = leaning
        else:
            _write(draft, leaning, words, rng)
        text, label = _labelled(draft, words, rng)
        review = Review(review_id=f"synthetic-{seed}-{number}", text=text)
        yield LabelledReview(review=review, label=label)
