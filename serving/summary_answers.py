"""A model's answers about a restaurant to the contract's words, held against what they cite.

A bullet must cite clauses of the polarity that it says, a strength clauses of the aspect that it
says; what does not is repaired where the evidence leaves no doubt, else dropped. Every mend is
noted. Every citation is looked up once more in the review it names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from data.answers import (
    AspectAnswer,
    BulletAnswer,
    OverallAnswer,
    StrengthAnswer,
    StrengthsAnswer,
    bullet_of,
    read_answer,
    strength_of,
)
from data.contract import (
    MAX_REPRESENTATIVE,
    Aspect,
    AspectSummary,
    Bullet,
    Citation,
    Strength,
    Strengths,
    aspect_polarity,
)
from data.prompts import Point
from data.summaries import LEAST_REPRESENTATIVE_SUPPORT

_OPPOSITES: Final = frozenset({"negative", "positive"})
Word = TypeVar("Word", bound=str)


@dataclass(frozen=True)
class Reader:
    """Reads one restaurant's answers.

    Attributes:
        texts: the reviews, by id.
        notes: what was mended; grows.
    """

    texts: Mapping[str, str]
    notes: list[str] = field(default_factory=list)

    def aspect(self, aspect: Aspect, text: str, points: Sequence[Point]) -> AspectSummary | None:
        """An aspect's summary; None where nothing of the answer can be used."""
        reading = read_answer(AspectAnswer, text, len(points))
        self.note(aspect, reading.mends)
        if reading.answer is None or not reading.answer.sentence.strip():
            return None
        bullets: dict[str, Bullet] = {}
        for number, said in enumerate(reading.answer.bullets, start=1):
            where = f"{aspect}, bullet {number}"
            bullet = self._bullet(said, points, where)
            if bullet is not None and bullet.text in bullets:
                self.notes.append(f"{where}: left out, an earlier bullet says the same")
            elif bullet is not None:
                bullets[bullet.text] = bullet
        if not bullets:
            return None
        return AspectSummary(
            polarity=aspect_polarity({bullet.polarity for bullet in bullets.values()}),
            sentence=reading.answer.sentence.strip(),
            bullets=tuple(bullets.values()),
        )

    def overall(self, text: str) -> str | None:
        """The overall summary; None where nothing of the answer can be used."""
        reading = read_answer(OverallAnswer, text, 0)
        self.note("overall", reading.mends)
        return (reading.answer.overall.strip() or None) if reading.answer else None

    def strengths(self, text: str, points: Sequence[Point]) -> Strengths | None:
        """What is often praised, most reviews first; None where the answer cannot be used."""
        reading = read_answer(StrengthsAnswer, text, len(points))
        self.note("strengths", reading.mends)
        if reading.answer is None:
            return None
        found: dict[str, Strength] = {}
        for number, said in enumerate(reading.answer.strengths, start=1):
            where = f"strength {number}"
            strength = self._strength(said, points, where)
            if strength is not None and strength.claim in found:
                self.notes.append(f"{where}: left out, an earlier strength says the same")
            elif strength is not None:
                found[strength.claim] = strength
        ranked = sorted(found.values(), key=lambda each: -support(each))
        if len(ranked) > MAX_REPRESENTATIVE:
            left_out = len(ranked) - MAX_REPRESENTATIVE
            self.notes.append(f"strengths: {left_out} with the least support left out")
        ranked = ranked[:MAX_REPRESENTATIVE]
        weak = sum(support(each) < LEAST_REPRESENTATIVE_SUPPORT for each in ranked)
        if weak:
            self.notes.append(f"strengths: {weak} rest on a single review, and stand last")
        return Strengths(representative=tuple(ranked), distinct=())

    def _bullet(self, said: BulletAnswer, points: Sequence[Point], where: str) -> Bullet | None:
        cited = {each: point_of(each, points).polarity for each in said.evidence}
        agreed = self._agreed(said.text, said.polarity, cited, where, apart=_OPPOSITES)
        if agreed is None:
            return None
        references, polarity = agreed
        mended = {"evidence": references, "polarity": polarity, "text": said.text.strip()}
        bullet = bullet_of(said.model_copy(update=mended), points)
        evidence = self.verified(bullet.evidence, where)
        return bullet.model_copy(update={"evidence": evidence}) if evidence else None

    def _strength(
        self, said: StrengthAnswer, points: Sequence[Point], where: str
    ) -> Strength | None:
        cited = {each: point_of(each, points).aspect for each in said.evidence}
        agreed = self._agreed(said.claim, said.aspect, cited, where)
        if agreed is None:
            return None
        references, aspect = agreed
        mended = {"evidence": references, "aspect": aspect, "claim": said.claim.strip()}
        strength = strength_of(said.model_copy(update=mended), points)
        evidence = self.verified(strength.evidence, where)
        return strength.model_copy(update={"evidence": evidence}) if evidence else None

    def _agreed(
        self,
        text: str,
        said: Word,
        cited: Mapping[str, Word],
        where: str,
        apart: frozenset[str] = frozenset(),
    ) -> tuple[list[str], Word] | None:
        """What a claim may cite, and the word that fits it; None where the claim must go.

        Args:
            text: of the claim.
            said: its polarity, or its aspect.
            cited: that of each clause it cites, by reference.
            where: for the notes.
            apart: words of which one is never mended to the other: the text would say the opposite.
        """
        if not text.strip():
            self.notes.append(f"{where}: dropped, it is blank")
            return None
        agreeing = [each for each, word in cited.items() if word == said]
        words = set(cited.values())
        if agreeing:
            if len(agreeing) < len(cited):
                others = len(cited) - len(agreeing)
                self.notes.append(f"{where}: {others} citations that are not {said} left out")
            return agreeing, said
        if len(words) > 1 or {said, *words} <= apart:
            self.notes.append(f"{where}: dropped, it says {said} and cites {sorted(words)}")
            return None
        (word,) = words
        self.notes.append(f"{where}: {said} mended to {word}, as what it cites is")
        return list(cited), word

    def verified(self, citations: Sequence[Citation], where: str) -> tuple[Citation, ...]:
        """The citations that are verbatim in the review they name; the others are noted."""
        true = tuple(each for each in citations if each.span in self.texts.get(each.review_id, ""))
        if len(true) < len(citations):
            self.notes.append(f"{where}: {len(citations) - len(true)} citations not verbatim")
        return true

    def note(self, where: str, mends: Sequence[str]) -> None:
        """Note what was mended in an answer."""
        self.notes.extend(f"{where}: answer mended: {mend}" for mend in mends)


def point_of(reference: str, points: Sequence[Point]) -> Point:
    """The point that a reference (``#3``) of a read answer names."""
    return points[int(reference.removeprefix("#")) - 1]


def support(strength: Strength) -> int:
    """How many distinct reviews a strength cites."""
    return len({citation.review_id for citation in strength.evidence})
