"""One answer against its gold answer, as additive parts: what every figure is summed from.

A part is ``[hits, of]`` for a share or a mean, ``[right, too many, missed]`` for precision, recall
and F1. An answer that could not be read has said nothing: it misses all and adds nothing.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from data.answers import AspectAnswer, LabelsAnswer, OverallAnswer, StrengthsAnswer
from data.contract import ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS, Aspect, Intensity
from data.prompts import Task
from training.evaluation.language.form import Parts
from training.evaluation.language.scores import SCORES, matched

Assignments = dict[int, set[Aspect]]
"""Index of a clause to the aspects it is said to speak of."""
Claim = tuple[Aspect, frozenset[str]]
"""A strength's aspect, and what it cites."""
_FARTHEST: Final = {step: float(max(step + 2, 2 - step)) for step in INTENSITIES}


def example_parts(task: Task, aspect: Aspect | None, gold: Any, said: Any) -> Parts:
    """Parts of one example of a task, its ``score`` from 0 to 1 among them.

    Args:
        task: which form both have.
        aspect: of an ``aspect`` example.
        gold: the answer that was taught.
        said: the answer that was read; None where none could be saved.
    """
    parts = _COUNTERS[task](gold, said)
    if aspect is not None:
        own = ("sentence_chrf", "bullets_chrf", "bullet_evidence")
        parts |= {f"{name}:{aspect}": parts[name] for name in own}
    return parts | {f"score:{task}": parts["score"]}


def labels_parts(gold: LabelsAnswer, said: LabelsAnswer | None) -> Parts:
    """Category assignment, states, sentiment, intensity and emotions of one review."""
    states, told = _states(gold), _states(said)
    emotions, felt = set(gold.emotions), set(said.emotions if said else ())
    parts = category_parts(assignments(gold), assignments(said))
    spoken = {aspect for found in assignments(said).values() for aspect in found}
    named = {aspect for aspect, _ in told}
    parts |= {
        "state": overlap(states, told),
        "presence": overlap({aspect for aspect, _ in states}, named),
        "hallucinated": [len(named - {aspect for aspect, _ in states}), len(named)],
        "uncited": [len(named - spoken), len(named)],
        "emotion": overlap(emotions, felt),
        "sentiment": [float(said is not None and said.sentiment == gold.sentiment), 1.0],
    }
    parts |= {f"emotion:{name}": overlap({name} & emotions, {name} & felt) for name in EMOTIONS}
    chosen = {said.sentiment} if said else set()
    parts |= {
        f"sentiment:{name}": overlap({name} & {gold.sentiment}, {name} & chosen)
        for name in SENTIMENTS
    }
    parts |= intensity_parts(gold.intensity, said.intensity if said else None)
    shares = [parts["sentiment"][0], parts["intensity_exact"][0]]
    shares += [_f1(parts[name]) for name in ("category", "state", "emotion") if any(parts[name])]
    return parts | {"score": [_mean(shares), 1.0]}


def category_parts(gold: Assignments, said: Assignments) -> Parts:
    """(review, aspect) pairs, an aspect at a time and pooled; and the gold clauses sorted right.

    A clause is right if it was given exactly the aspects that it has: one that is given all six is
    not sorted at all.
    """
    pairs, told = ({aspect for found in each.values() for aspect in found} for each in (gold, said))
    right = sum(said.get(index, set()) == found for index, found in gold.items())
    parts = {f"category:{name}": overlap({name} & pairs, {name} & told) for name in ASPECTS}
    return parts | {"category": overlap(pairs, told), "clause": [right, len(gold)]}


def assignments(answer: LabelsAnswer | None) -> Assignments:
    """Which aspects each cited clause is said to speak of."""
    found: Assignments = {}
    for each in answer.evidence if answer else ():
        found.setdefault(int(each.clause[1:]) - 1, set()).add(each.aspect)
    return found


def intensity_parts(gold: Intensity, said: Intensity | None) -> Parts:
    """Distance in steps; an answer that was not given is charged the farthest step."""
    error = _FARTHEST[gold] if said is None else float(abs(said - gold))
    return {
        "intensity_exact": [float(error == 0), 1.0],
        "intensity_within_one": [float(said is not None and error <= 1), 1.0],
        "intensity_mae": [error, 1.0],
    }


def aspect_parts(gold: AspectAnswer, said: AspectAnswer | None) -> Parts:
    """One aspect's sentence, bullets and citations."""
    parts = text_parts("sentence", gold.sentence, said.sentence if said else "")
    bullets = [bullet.text for bullet in said.bullets] if said else []
    parts |= texts_parts("bullets", [bullet.text for bullet in gold.bullets], bullets)
    parts["bullet_evidence"] = overlap(_cited(gold), _cited(said))
    shares = [parts["sentence_chrf"][0], parts["bullets_chrf"][0], _f1(parts["bullet_evidence"])]
    return parts | {"score": [_mean(shares), 1.0]}


def overall_parts(gold: OverallAnswer, said: OverallAnswer | None) -> Parts:
    """A restaurant's summary in two or three sentences."""
    parts = text_parts("overall", gold.overall, said.overall if said else "")
    return parts | {"score": parts["overall_chrf"]}


def strengths_parts(gold: StrengthsAnswer, said: StrengthsAnswer | None) -> Parts:
    """Strengths found, and how they are worded."""
    found, told = (
        [(each.aspect, frozenset(each.evidence)) for each in (answer.strengths if answer else ())]
        for answer in (gold, said)
    )
    parts = claims_parts(found, told)
    claims = [each.claim for each in said.strengths] if said else []
    # With no strength to find, saying that there is none is right; saying nothing is not.
    shares = [_f1(parts["strength"]) if found or told else float(said is not None)]
    if gold.strengths:
        parts |= texts_parts("claims", [each.claim for each in gold.strengths], claims)
        shares.append(parts["claims_chrf"][0])
    return parts | {"score": [_mean(shares), 1.0]}


def claims_parts(gold: Sequence[Claim], said: Sequence[Claim]) -> Parts:
    """Strengths that are the same: of one aspect, with a citation in common, each paired once."""
    same = np.asarray(
        [[mine[0] == other[0] and bool(mine[1] & other[1]) for other in said] for mine in gold],
        dtype=np.bool_,
    ).reshape(len(gold), len(said))
    rows, columns = linear_sum_assignment(~same)
    right = int(same[rows, columns].sum())
    return {
        "strength": [right, len(said) - right, len(gold) - right],
        "strength_aspect": overlap_counted([each for each, _ in gold], [each for each, _ in said]),
    }


def text_parts(name: str, gold: str, said: str) -> Parts:
    """Each score of one text."""
    return {f"{name}_{score}": [compare(gold, said), 1.0] for score, compare in SCORES.items()}


def texts_parts(name: str, gold: Sequence[str], said: Sequence[str]) -> Parts:
    """Each score of a list of texts, whatever their order."""
    return {
        f"{name}_{score}": [matched(compare, gold, said), 1.0] for score, compare in SCORES.items()
    }


def overlap(gold: Collection[Hashable], said: Collection[Hashable]) -> list[float]:
    """``[right, too many, missed]`` of two sets."""
    return overlap_counted(set(gold), set(said))


def overlap_counted(gold: Iterable[Hashable], said: Iterable[Hashable]) -> list[float]:
    """``[right, too many, missed]`` of two lists, in which a thing may stand more than once."""
    wanted, found = Counter(gold), Counter(said)
    right = (wanted & found).total()
    return [right, found.total() - right, wanted.total() - right]


def _states(answer: LabelsAnswer | None) -> set[tuple[Aspect, str]]:
    if answer is None:
        return set()
    states = {aspect: getattr(answer.aspects, aspect) for aspect in ASPECTS}
    return {(aspect, state) for aspect, state in states.items() if state != "absent"}


def _cited(answer: AspectAnswer | None) -> set[tuple[str, str]]:
    bullets = answer.bullets if answer else ()
    return {(number, bullet.polarity) for bullet in bullets for number in bullet.evidence}


def _f1(parts: Sequence[float]) -> float:
    right, extra, missed = parts
    return 2.0 * right / (2.0 * right + extra + missed)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_COUNTERS: Final[dict[Task, Callable[[Any, Any], Parts]]] = {
    "labels": labels_parts,
    "aspect": aspect_parts,
    "overall": overall_parts,
    "strengths": strengths_parts,
}
