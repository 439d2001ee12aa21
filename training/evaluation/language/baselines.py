"""Null baselines: what can be scored without reading. Each is asked what a model is asked.

They write texts in the tasks' form, and are read, mended and counted as a model is.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from data.answers import (
    MAX_EVIDENCE,
    MAX_STRENGTHS,
    AspectAnswer,
    AspectStates,
    BulletAnswer,
    ClauseEvidence,
    LabelsAnswer,
    OverallAnswer,
    StrengthAnswer,
    StrengthsAnswer,
    dump_answer,
    label_of,
    read_answer,
)
from data.clauses import split_clauses
from data.contract import (
    ASPECTS,
    MAX_BULLETS,
    Aspect,
    Label,
)
from data.errors import MetricError
from data.examples import Example
from data.prompts import Task
from serving.engines.chat import ChatAnswer
from training.evaluation.language.gold import Gold
from training.evaluation.language.restaurant_baselines import (
    LEAD_SENTENCES,
    lead_restaurants,
    nothing,
    other_restaurants,
)
from training.evaluation.language.restaurants import GoldRestaurant, RestaurantAnswer, Summarised
from training.evaluation.language.tally import Said

EMPTY: Final[dict[Task, str]] = {
    "labels": dump_answer(
        LabelsAnswer(
            evidence=[],
            aspects=AspectStates.model_validate(dict.fromkeys(ASPECTS, "absent")),
            intensity=0,
            sentiment="neutral",
            emotions=[],
        )
    ),
    "aspect": '{"bullets":[],"sentence":""}',
    "overall": '{"overall":""}',
    "strengths": '{"strengths":[]}',
}
NULL_WORDS: Final = {
    "empty": "gives the emptiest answer: nothing cited, nothing written, neutral",
    "other": "gives the gold answers of another restaurant",
    "lead": "copies the first clauses it is shown and cites each; restaurants' clauses are sorted "
    "for it as the gold labels sort them",
    "majority": "gives every review and clause the training part's commonest label",
    "everything": "gives every clause every aspect: what F1 grants to whoever says all",
}
NULLS: Final = tuple(NULL_WORDS)


def null_baselines(gold: Gold) -> dict[str, Said]:
    """Every null baseline by name.

    Raises:
        MetricError: the training part has no labels example, or the part only one restaurant.
    """
    majority = majority_label(gold.train)
    everything = {aspect: majority.polarities[aspect] for aspect in ASPECTS}
    usual = {majority.aspect: majority.polarities[majority.aspect]}
    said = {
        "empty": _said(gold, [EMPTY[each.task] for each in gold.examples], nothing(gold)),
        "other": _said(gold, _others(gold), other_restaurants(gold)),
        "lead": _said(
            gold,
            [_lead(gold, each) for each in gold.examples],
            lead_restaurants(gold),
            restaurants_are=("summary",),
        ),
    }
    for name, aspects in (("majority", usual), ("everything", everything)):
        texts = [
            dump_answer(majority.answer(each.numbered, aspects)) if each.task == "labels" else None
            for each in gold.examples
        ]
        routed = [
            Summarised(routed=_routed(restaurant, majority, aspects))
            for restaurant in gold.restaurants
        ]
        said[name] = _said(gold, texts, routed, restaurants_are=("routing",))
    return said


class MajorityLabel:
    """The commonest label of the training part.

    Attributes:
        aspect: the commonest of the cited clauses.
        polarities: of each aspect, the commonest of its clauses; positive for one without any.
    """

    def __init__(self, answers: Sequence[LabelsAnswer]) -> None:
        cited = [each for answer in answers for each in answer.evidence]
        found = {
            aspect: Counter(each.polarity for each in cited if each.aspect == aspect)
            for aspect in ASPECTS
        }
        self.aspect: Aspect = _commonest(each.aspect for each in cited)
        self.polarities = {
            aspect: _commonest(counts.elements()) if counts else "positive"
            for aspect, counts in found.items()
        }
        self._sentiment = _commonest(answer.sentiment for answer in answers)
        self._intensity = _commonest(answer.intensity for answer in answers)
        felt = Counter(emotion for answer in answers for emotion in answer.emotions)
        self._emotions = [emotion for emotion, n in felt.items() if 2 * n > len(answers)]

    def answer(self, numbered: int, aspects: dict[Aspect, Any]) -> LabelsAnswer:
        """The same label for any review, its clauses given these aspects."""
        pairs = [(number, aspect) for number in range(1, numbered + 1) for aspect in aspects]
        states = dict.fromkeys(ASPECTS, "absent") | aspects
        return LabelsAnswer(
            evidence=[
                ClauseEvidence(clause=f"#{number}", aspect=aspect, polarity=aspects[aspect])
                for number, aspect in pairs[:MAX_EVIDENCE]
            ],
            aspects=AspectStates.model_validate(states),
            intensity=self._intensity,
            sentiment=self._sentiment,
            emotions=self._emotions,
        )


def majority_label(train: Sequence[Example]) -> MajorityLabel:
    """Fit the majority on training examples.

    Raises:
        MetricError: none is of labels, or none cites a clause.
    """
    answers = [
        LabelsAnswer.model_validate_json(example.answer)
        for example in train
        if example.task == "labels"
    ]
    if not any(answer.evidence for answer in answers):
        raise MetricError(
            f"the {len(train)} training examples hold no labelled clause, so there is no majority; "
            "build the targets of a larger split"
        )
    return MajorityLabel(answers)


def _commonest(values: Any) -> Any:
    """The commonest value; of equals, the first in order, so that a run can be repeated."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))


def _said(
    gold: Gold,
    texts: Sequence[str | None],
    restaurants: Sequence[RestaurantAnswer],
    *,
    restaurants_are: Sequence[str] = ("routing", "summary"),
) -> Said:
    answers = [None if text is None else ChatAnswer(text, "stop") for text in texts]
    asked = [restaurants] if gold.restaurants else []
    return Said([answers], restaurants=asked, restaurants_are=frozenset(restaurants_are))


def _others(gold: Gold) -> list[str]:
    """Each example's answer from the next restaurant, of the same aspect where it has one."""
    whose = [gold.restaurant_of(example) or example.about for example in gold.examples]
    names = list(dict.fromkeys(whose))
    answers: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, example in zip(whose, gold.examples, strict=True):
        for aspect in {example.aspect, None}:
            answers[name, example.task, aspect].append(example.answer)
    place: Counter[tuple[Any, ...]] = Counter()
    said = []
    for name, example in zip(whose, gold.examples, strict=True):
        at = names.index(name)
        following = [
            found
            for aspect in dict.fromkeys((example.aspect, None))
            for other in names[at + 1 :] + names[:at]
            if (found := answers.get((other, example.task, aspect)))
        ]
        if not following:
            raise MetricError(
                f"only {name!r} has an example of {example.task!r}, so there is no other "
                "restaurant's gold beside it; split a larger snapshot"
            )
        kind = (name, example.task, example.aspect)
        said.append(following[0][place[kind] % len(following[0])])
        place[kind] += 1
    return said


def _lead(gold: Gold, example: Example) -> str | None:
    if example.task == "labels":
        return None
    points = gold.points[example.about]
    if example.task == "overall":
        written = next(e for e in gold.restaurants if e.written.restaurant_id == example.about)
        sentences = [part.sentence for part in written.written.summary.aspects.values()]
        return dump_answer(OverallAnswer(overall=" ".join(sentences[:LEAD_SENTENCES])[:400]))
    if example.task == "strengths":
        praised = [point for point in points if point.polarity == "positive"][:MAX_STRENGTHS]
        claims = [
            StrengthAnswer(aspect=each.aspect, evidence=[f"#{number}"], claim=each.span[:40])
            for number, each in enumerate(praised, start=1)
        ]
        return dump_answer(StrengthsAnswer(strengths=claims))
    mine = [point for point in points if point.aspect == example.aspect][:MAX_BULLETS]
    bullets = [
        BulletAnswer(evidence=[f"#{number}"], polarity=each.polarity, text=each.span[:80])
        for number, each in enumerate(mine, start=1)
    ]
    if not bullets:
        return EMPTY["aspect"]
    return dump_answer(AspectAnswer(bullets=bullets, sentence=mine[0].span[:200]))


def _routed(
    restaurant: GoldRestaurant, majority: MajorityLabel, aspects: dict[Aspect, Any]
) -> dict[str, Label]:
    routed = {}
    for row in restaurant.rows:
        clauses = split_clauses(row.review.text)
        text = dump_answer(majority.answer(len(clauses), aspects))
        reading = read_answer(LabelsAnswer, text, len(clauses))
        if reading.answer is not None:
            routed[row.review.review_id] = label_of(reading.answer, clauses)
    return routed
