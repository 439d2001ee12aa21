"""A restaurant's reviews to its summary and strengths, in two stages, each claim with its evidence.

First every review is read by itself (``labels``): which clause speaks of which aspect, and how. The
clauses so routed are then summarised aspect by aspect, and what is praised becomes strengths; last,
the aspects' sentences become one. So no prompt grows with the number of reviews, and what a model
says can be held against the clauses it was shown (serving/summary_answers.py).

Where the model fails, the diners' own words stand in (serving/extractive.py), and the outcome says
so: ``ok`` has no reasons, ``degraded`` and ``insufficient_data`` always do.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from data.answers import LabelsAnswer, decoding_schema, label_of, read_answer
from data.clauses import Clause, split_clauses
from data.contract import (
    ASPECTS,
    Aspect,
    AspectSummary,
    CategorySummary,
    Label,
    Review,
    Strengths,
)
from data.errors import ContractError, EngineError
from data.prompts import (
    TASKS,
    Message,
    Point,
    Task,
    aspect_prompt,
    labels_prompt,
    overall_prompt,
    prompt_version,
    strengths_prompt,
)
from serving.engines.chat import ChatAnswer, ChatEngine, ChatRequest
from serving.extractive import extractive_aspect, extractive_overall
from serving.routing import newest_points, points_of_labels
from serving.summary_answers import Reader

Status = Literal["ok", "degraded", "insufficient_data"]
ANSWER_TOKENS: Final[Mapping[Task, int]] = {
    "labels": 768,
    "aspect": 1_024,
    "overall": 512,
    "strengths": 768,
}
"""Room for the longest answer that each form allows, in a vocabulary that knows Korean."""
_NAMED: Final = 20


@dataclass(frozen=True)
class SummaryOutcome:
    """What came of a restaurant's reviews.

    Attributes:
        summary: None where nothing was routed.
        strengths: ``representative`` alone, those of two or more reviews first; None where they
            could not be read.
        routed: the label of every review that could be read, by review id.
        reasons: why it is not ``ok``; each review that was not read is named.
        notes: what was mended or left out on the way, which does not lessen the status.
        prompt_versions: by task.
        prompt_tokens: of all steps together.
        completion_tokens: of all steps together.
        timings_ms: by step.
    """

    summary: CategorySummary | None
    strengths: Strengths | None
    routed: dict[str, Label]
    status: Status
    reasons: list[str]
    notes: list[str]
    prompt_versions: dict[Task, str]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    timings_ms: dict[str, float] = field(default_factory=dict)


async def summarise(
    engine: ChatEngine,
    reviews: Sequence[Review],
    *,
    max_points: int = 60,
    answer_tokens: Mapping[Task, int] = ANSWER_TOKENS,
    timeout_s: float | None = None,
) -> SummaryOutcome:
    """Summarise one restaurant's reviews. An engine that fails degrades the outcome, never raises.

    Args:
        engine: answers the prompts.
        reviews: of one restaurant, each id once, in any order.
        max_points: clauses of an aspect, and of the praise, that a prompt shows; the newest.
        answer_tokens: the most an answer may take, by task.
        timeout_s: for all steps together; what is late counts as failed.

    Raises:
        ContractError: a review id comes twice, or ``max_points`` is below 1.
    """
    twice = [name for name, count in Counter(r.review_id for r in reviews).items() if count > 1]
    if twice or max_points < 1:
        raise ContractError(
            f"review ids {twice[:_NAMED]!r} come twice, max_points={max_points!r}; pass each "
            "review once, and at least 1 point"
        )
    work = _Work(engine, reviews, max_points, answer_tokens, timeout_s)
    if not reviews:
        return work.outcome({}, None, None, "insufficient_data", "there are no reviews")
    routed = await work.route()
    points = points_of_labels(reviews, routed)
    if not points:
        nothing = "no review says anything of any aspect"
        status: Status = "degraded" if work.reasons else "insufficient_data"
        return work.outcome(routed, None, None, status, nothing)
    summaries, strengths = await work.read_points(points)
    overall = await work.read_overall(summaries)
    summary = CategorySummary(overall=overall, aspects=summaries)
    status = "degraded" if work.reasons else "ok"
    return work.outcome(routed, summary, strengths, status)


class _Work:
    """One restaurant on its way through the steps."""

    def __init__(
        self,
        engine: ChatEngine,
        reviews: Sequence[Review],
        max_points: int,
        answer_tokens: Mapping[Task, int],
        timeout_s: float | None,
    ):
        self._engine = engine
        self._reviews = reviews
        self._max_points = max_points
        self._answer_tokens = answer_tokens
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._reader = Reader({review.review_id: review.text for review in reviews})
        self._dates = {review.review_id: review.written_on for review in reviews}
        self._tokens: Counter[str] = Counter()
        self._timings_ms: dict[str, float] = {}
        self.reasons: list[str] = []

    async def route(self) -> dict[str, Label]:
        """Every review's label; a review that cannot be read is named in the reasons."""
        clauses = {review.review_id: split_clauses(review.text) for review in self._reviews}
        asked = {name: mine for name, mine in clauses.items() if mine}
        requests = [
            self._request("labels", labels_prompt(mine), len(mine)) for mine in asked.values()
        ]
        answers = await self._ask("labels", requests)
        # Mending hundreds of answers takes seconds, which other callers should not wait for.
        return await asyncio.to_thread(
            self._labels, clauses, dict(zip(asked, answers, strict=True))
        )

    def _labels(
        self, clauses: Mapping[str, Sequence[Clause]], answers: Mapping[str, ChatAnswer]
    ) -> dict[str, Label]:
        labels: dict[str, Label] = {}
        failed: dict[str, list[str]] = {}
        for name, mine in clauses.items():
            answer = answers.get(name)
            if answer is None or answer.error is not None:
                why = answer.error if answer else None
                failed.setdefault(why or "the text is blank", []).append(name)
                continue
            reading = read_answer(LabelsAnswer, answer.text, len(mine))
            self._reader.note(f"review {name!r}", reading.mends)
            if reading.answer is None:
                failed.setdefault(f"unreadable answer, {reading.mends[-1]}", []).append(name)
            else:
                labels[name] = label_of(reading.answer, mine)
        for why, names in failed.items():
            shown = ", ".join(map(repr, names[:_NAMED]))
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            self.reasons.append(
                f"{len(names)} of {len(self._reviews)} reviews not read ({shown}{more}): {why}"
            )
        return labels

    async def read_points(
        self, points: Sequence[Point]
    ) -> tuple[dict[Aspect, AspectSummary], Strengths | None]:
        """Each aspect's summary, and the strengths, asked for together."""
        by_aspect: dict[Aspect, list[Point]] = {
            aspect: self._newest([point for point in points if point.aspect == aspect], aspect)
            for aspect in ASPECTS
            if any(point.aspect == aspect for point in points)
        }
        praised = self._newest([each for each in points if each.polarity == "positive"], "praise")
        requests = [
            self._request("aspect", aspect_prompt(aspect, mine), len(mine))
            for aspect, mine in by_aspect.items()
        ]
        if praised:
            requests.append(self._request("strengths", strengths_prompt(praised), len(praised)))
        answers = await self._ask("aspects_and_strengths", requests)
        summaries = {
            aspect: self._aspect(aspect, mine, answer)
            for (aspect, mine), answer in zip(
                by_aspect.items(), answers[: len(by_aspect)], strict=True
            )
        }
        if not praised:
            return summaries, Strengths(representative=(), distinct=())
        answer = answers[-1]
        strengths = None if answer.error else self._reader.strengths(answer.text, praised)
        if strengths is None:
            self.reasons.append(f"strengths left out: {_why(answer)}")
        return summaries, strengths

    async def read_overall(self, summaries: Mapping[Aspect, AspectSummary]) -> str:
        """The aspects' sentences as one text; side by side where the model's cannot be read."""
        sentences = [(aspect, each.polarity, each.sentence) for aspect, each in summaries.items()]
        request = self._request("overall", overall_prompt(sentences), 0)
        (answer,) = await self._ask("overall", [request])
        overall = None if answer.error else self._reader.overall(answer.text)
        if overall is None:
            self.reasons.append(f"overall: the aspects' sentences side by side, {_why(answer)}")
            return extractive_overall(summaries)
        return overall

    def outcome(
        self,
        routed: dict[str, Label],
        summary: CategorySummary | None,
        strengths: Strengths | None,
        status: Status,
        *reasons: str,
    ) -> SummaryOutcome:
        """What is handed back."""
        return SummaryOutcome(
            summary=summary,
            strengths=strengths,
            routed=routed,
            status=status,
            reasons=[*self.reasons, *reasons],
            notes=self._reader.notes,
            prompt_versions={task: prompt_version(task) for task in TASKS},
            prompt_tokens=self._tokens["prompt"],
            completion_tokens=self._tokens["completion"],
            timings_ms=self._timings_ms,
        )

    def _aspect(self, aspect: Aspect, points: Sequence[Point], answer: ChatAnswer) -> AspectSummary:
        summary = None if answer.error else self._reader.aspect(aspect, answer.text, points)
        if summary is None:
            self.reasons.append(f"{aspect}: verbatim clauses instead, {_why(answer)}")
            return extractive_aspect(points)
        return summary

    def _newest(self, points: list[Point], what: str) -> list[Point]:
        if len(points) <= self._max_points:
            return points
        left_out = len(points) - self._max_points
        self._reader.notes.append(f"{what}: the {left_out} oldest of {len(points)} points left out")
        return newest_points(points, self._dates, self._max_points)

    def _request(self, task: Task, messages: Sequence[Message], numbered: int) -> ChatRequest:
        return ChatRequest(
            messages,
            schema=decoding_schema(task, numbered),
            max_tokens=self._answer_tokens[task],
        )

    async def _ask(self, step: str, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """The engine's answers; an engine that fails as a whole has failed on each."""
        started = time.perf_counter()
        left_s = None if self._deadline is None else self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                answers = await self._engine.complete(requests)
        except TimeoutError:
            answers = _failed(requests, f"no answer within {self._timeout_s!r} s")
        except EngineError as error:
            answers = _failed(requests, str(error))
        self._timings_ms[step] = (time.perf_counter() - started) * 1000
        self._tokens["prompt"] += sum(answer.prompt_tokens for answer in answers)
        self._tokens["completion"] += sum(answer.completion_tokens for answer in answers)
        return answers


def _failed(requests: Sequence[ChatRequest], why: str) -> list[ChatAnswer]:
    return [ChatAnswer("", "error", error=why) for _ in requests]


def _why(answer: ChatAnswer) -> str:
    return answer.error or f"the answer (finish_reason {answer.finish_reason!r}) was of no use"
