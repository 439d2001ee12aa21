"""An optional judge: another model says whether a bullet's evidence supports it.

Any OpenAI-compatible endpoint will do. A judge is believed as far as it agrees with people: it is
also asked about written bullets, and about the same bullets with evidence of another restaurant,
unmarked among them, and Cohen's kappa with what is true is reported beside its verdicts.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from data.contract import CategorySummary
from data.errors import MetricError
from data.manifest import canonical_digest
from training.evaluation.intervals import Values, draw_resamples, interval
from training.evaluation.language.form import Parts
from training.evaluation.language.gold import Gold
from training.evaluation.language.judge_endpoint import (
    INSTRUCTIONS,
    JudgeEndpoint,
    Question,
    Verdict,
    ask_all,
)
from training.evaluation.language.restaurants import RestaurantAnswer

NOT_ASKED: Final[dict[str, Any]] = {"asked": False, "reason": "not asked: no judge was given"}
_FAILURES_SHOWN: Final = 3


@dataclass(frozen=True)
class Judgement:
    """What the judge said.

    Attributes:
        report: for metrics.json: whom we asked, and how far it agrees with what is true.
        parts: of each model, per restaurant, ``judged`` as ``[supported, bullets judged]``.
    """

    report: dict[str, Any]
    parts: dict[str, list[Parts]]


async def ask_judge(
    endpoint: JudgeEndpoint,
    gold: Gold,
    answers: Mapping[str, Sequence[RestaurantAnswer]],
    *,
    seed: int = 0,
) -> Judgement:
    """Ask about every bullet of every model, the controls among them.

    Args:
        endpoint: the judge.
        gold: restaurants with written summaries.
        answers: of each model, one per restaurant.
        seed: of the choice of controls and of the order.

    Raises:
        MetricError: there is nothing to judge, or the judge answered nothing.
    """
    known = control_questions(gold, endpoint.controls, seed)
    asked = {
        name: [
            _questions(restaurant.written.restaurant_id, said.summary)
            for restaurant, said in zip(gold.restaurants, mine, strict=True)
        ]
        for name, mine in answers.items()
    }
    # A bullet that two models share is asked about once.
    every = [*known, *(each for mine in asked.values() for some in mine for each in some)]
    questions = list(dict.fromkeys(every))
    random.Random(seed).shuffle(questions)  # noqa: S311  # an order, not a secret
    verdicts, failures = await ask_all(endpoint, questions)
    parts: dict[str, list[Parts]] = {
        name: [_judged([verdicts[each] for each in some]) for some in mine]
        for name, mine in asked.items()
    }
    unanswered = sum(verdict is None for verdict in verdicts.values())
    report = {
        "asked": True,
        "model": endpoint.model,
        "prompt": canonical_digest([INSTRUCTIONS, Verdict.model_json_schema()])[:12],
        "questions": len(questions),
        "unanswered": unanswered,
        "failures": failures[:_FAILURES_SHOWN],
        "agreement": agreement([(each, verdicts[each]) for each in known], seed=seed),
    }
    return Judgement(report, parts)


def control_questions(gold: Gold, count: int, seed: int) -> list[Question]:
    """Written bullets with their own evidence, and with that of another restaurant's bullet.

    The other bullet is of the same aspect where there is one, so that the topic gives nothing away.

    Raises:
        MetricError: fewer than two restaurants have bullets.
    """
    bullets = [
        (restaurant.written.restaurant_id, aspect, bullet.text, _spans(bullet))
        for restaurant in gold.restaurants
        for aspect, part in restaurant.written.summary.aspects.items()
        for bullet in part.bullets
    ]
    if len({name for name, *_ in bullets}) < 2:  # noqa: PLR2004  # this one and another
        raise MetricError(
            "a judge is held against written bullets of at least two restaurants; write summaries "
            "of more restaurants of this part, or ask no judge"
        )
    chosen = random.Random(seed)  # noqa: S311  # a choice, not a secret
    questions = []
    for name, aspect, text, spans in chosen.sample(bullets, min(count, len(bullets))):
        others = [each for each in bullets if each[0] != name]
        same = [each for each in others if each[1] == aspect]
        *_, foreign = chosen.choice(same or others)
        questions.append(Question(name, text, spans, supported=True))
        questions.append(Question(name, text, foreign, supported=False))
    return questions


def agreement(
    known: Sequence[tuple[Question, bool | None]], *, seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """Cohen's kappa of the judge with what is true, with its interval over restaurants."""
    answered = [(question, verdict) for question, verdict in known if verdict is not None]
    found: dict[str, Any] = {"kappa": None, "low": None, "high": None, "n": len(answered)}
    if not answered:
        return found | {"reason": "the judge answered none of the controls"}
    table = np.zeros((len(answered), 4))
    for row, (question, verdict) in enumerate(answered):
        table[row, 2 * int(bool(question.supported)) + int(verdict)] = 1.0
    mismatched, written = table[:, :2].sum(axis=0), table[:, 2:].sum(axis=0)
    found["mismatched_called_supported"] = _share(mismatched)
    found["written_called_supported"] = _share(written)
    kappa = float(_kappa(table.sum(axis=0, keepdims=True))[0])
    if not np.isfinite(kappa):
        return found | {"reason": "the controls answered are all of one kind"}
    found["kappa"] = kappa
    drawn = draw_resamples([q.restaurant for q, _ in answered], resamples=resamples, seed=seed)
    try:
        values = _kappa(drawn.counts.astype(np.float64) @ table)
        found["low"], found["high"] = interval(values, units=int(drawn.units.max()) + 1)
    except MetricError as error:
        found["reason"] = str(error)
    return found


def _kappa(cells: Values) -> Values:
    """Of (n, 4) counts: not so and denied, not so and affirmed, so and denied, so and affirmed."""
    total = cells.sum(axis=1)
    gold, said = cells[:, 2] + cells[:, 3], cells[:, 1] + cells[:, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = (cells[:, 0] + cells[:, 3]) / total
        chance = (gold * said + (total - gold) * (total - said)) / total**2
        return np.asarray(np.where(chance < 1, (observed - chance) / (1 - chance), np.nan))


def _share(denied_affirmed: Values) -> float | None:
    total = float(denied_affirmed.sum())
    return float(denied_affirmed[1]) / total if total else None


def _questions(restaurant: str, summary: CategorySummary | None) -> list[Question]:
    return [
        Question(restaurant, bullet.text, _spans(bullet))
        for part in (summary.aspects.values() if summary else ())
        for bullet in part.bullets
    ]


def _spans(bullet: Any) -> tuple[str, ...]:
    return tuple(citation.span for citation in bullet.evidence)


def _judged(verdicts: Sequence[bool | None]) -> Parts:
    answered = [verdict for verdict in verdicts if verdict is not None]
    return {"judged": [float(sum(answered)), float(len(answered))]}
