"""What a language model answers: the form of each task, read strictly, mended, and turned back.

Comes in: the text of an answer, and what its prompt numbered. Goes out: the contract's words. The
JSON Schema that constrains decoding is made here too, for one prompt: the clause numbers it may
cite are those of that prompt, so a citation of nothing cannot be decoded.

Raw and repaired are kept apart: an answer is first read as it stands; only if it cannot be, what
can be saved is saved and every mend is named (data/answer_repair.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from data.answer_repair import mended, repaired_json
from data.clauses import Clause
from data.contract import (
    ASPECTS,
    EMOTIONS,
    MAX_BULLET_CHARACTERS,
    MAX_BULLETS,
    MAX_CITATIONS,
    MAX_CLAIM_CHARACTERS,
    MAX_DISTINCT,
    MAX_OVERALL_CHARACTERS,
    MAX_REPRESENTATIVE,
    MAX_SENTENCE_CHARACTERS,
    Aspect,
    AspectState,
    Bullet,
    Citation,
    Emotion,
    Evidence,
    Intensity,
    Label,
    Polarity,
    Sentiment,
    Strength,
)
from data.errors import ContractError
from data.prompts import Point, Task

MAX_EVIDENCE: Final = 16
MAX_STRENGTHS: Final = MAX_REPRESENTATIVE + MAX_DISTINCT


def _among_numbered(reference: str, info: ValidationInfo) -> str:
    """Checked where the reader says how many lines the prompt numbers."""
    numbered = info.context and info.context["numbered"]
    if numbered is not None and int(reference.removeprefix("#")) > numbered:
        raise ValueError(f"the prompt numbers {numbered} lines; cite one of them")
    return reference


def _no_boolean(step: object) -> object:
    # Python holds that true is 1; JSON Schema does not.
    if isinstance(step, bool):
        raise ValueError("it is a number from -2 to 2")  # noqa: TRY004  # pydantic takes no other
    return step


Reference = Annotated[str, Field(pattern=r"^#[1-9][0-9]{0,3}$"), AfterValidator(_among_numbered)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ClauseEvidence(_Answer):
    """One clause that speaks of an aspect."""

    clause: Reference
    aspect: Aspect
    polarity: Polarity


class AspectStates(_Answer):
    """Every aspect is decided: an aspect left out could be forgotten as well as absent."""

    food: AspectState
    service: AspectState
    atmosphere: AspectState
    price: AspectState
    hygiene: AspectState
    access: AspectState


class LabelsAnswer(_Answer):
    """What is said of one review."""

    evidence: list[ClauseEvidence] = Field(max_length=MAX_EVIDENCE)
    aspects: AspectStates
    intensity: Annotated[Intensity, BeforeValidator(_no_boolean)]
    sentiment: Sentiment
    emotions: list[Emotion] = Field(max_length=len(EMOTIONS))


class BulletAnswer(_Answer):
    """A point and the clauses that make it: cited first, so that the words follow the evidence."""

    evidence: list[Reference] = Field(min_length=1, max_length=MAX_CITATIONS)
    polarity: Polarity
    text: str = Field(min_length=1, max_length=MAX_BULLET_CHARACTERS)


class AspectAnswer(_Answer):
    """One aspect's summary."""

    bullets: list[BulletAnswer] = Field(min_length=1, max_length=MAX_BULLETS)
    sentence: str = Field(min_length=1, max_length=MAX_SENTENCE_CHARACTERS)


class OverallAnswer(_Answer):
    """A restaurant's summary in two or three sentences."""

    overall: str = Field(min_length=1, max_length=MAX_OVERALL_CHARACTERS)


class StrengthAnswer(_Answer):
    """One thing that is praised."""

    aspect: Aspect
    evidence: list[Reference] = Field(min_length=1, max_length=MAX_CITATIONS)
    claim: str = Field(min_length=1, max_length=MAX_CLAIM_CHARACTERS)


class StrengthsAnswer(_Answer):
    """What is praised, most supported first."""

    strengths: list[StrengthAnswer] = Field(max_length=MAX_STRENGTHS)


Answer = TypeVar("Answer", LabelsAnswer, AspectAnswer, OverallAnswer, StrengthsAnswer)
ANSWERS: Final[dict[Task, type[BaseModel]]] = {
    "labels": LabelsAnswer,
    "aspect": AspectAnswer,
    "overall": OverallAnswer,
    "strengths": StrengthsAnswer,
}


@dataclass(frozen=True)
class Reading(Generic[Answer]):
    """An answer as it was read.

    Attributes:
        answer: None where nothing could be saved.
        parsed: the text was one JSON object, as it stood.
        obeyed: and of the task's form, citing only numbers that its prompt has.
        mends: what had to be mended; empty if ``obeyed``.
    """

    answer: Answer | None
    parsed: bool
    obeyed: bool
    mends: list[str] = field(default_factory=list)


def decoding_schema(task: Task, numbered: int) -> dict[str, Any]:
    """JSON Schema for one prompt's answer, self-contained; keys stand in the order they are said.

    Args:
        task: which form.
        numbered: how many lines the prompt numbers; the citable references are #1 … #numbered.

    Raises:
        ContractError: the answer is to cite lines, and the prompt numbers none.
    """
    references = [f"#{number}" for number in range(1, numbered + 1)]

    def citable(node: Any) -> Any:
        if isinstance(node, list):
            return [citable(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "pattern" in node and not references:
            raise ContractError(
                f"the prompt of a {task!r} answer numbers {numbered!r} lines, so there is nothing "
                "to cite; do not ask"
            )
        if "pattern" in node:
            return {"type": "string", "enum": references.copy()}
        return {key: citable(value) for key, value in node.items()}

    constrained: dict[str, Any] = citable(_form(task))
    return constrained


def dump_answer(answer: BaseModel) -> str:
    """An answer as the model is taught to write it: one line, no blanks, Korean unescaped."""
    return orjson.dumps(answer.model_dump(mode="json")).decode()


def read_answer(kind: type[Answer], text: str, numbered: int) -> Reading[Answer]:
    """Read an answer as it stands; where that fails, save what can be saved.

    Args:
        kind: the task's form.
        text: what the model said.
        numbered: how many lines its prompt numbers.
    """

    def validate(value: Any) -> Answer:
        return kind.model_validate(value, context={"numbered": numbered})

    mends: list[str] = []
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    parsed = isinstance(value, dict)
    if parsed:
        try:
            return Reading(validate(value), parsed=True, obeyed=True)
        except ValidationError:
            pass
    else:
        mends.append("not one JSON object")
        value = repaired_json(text, mends)
    return Reading(mended(validate, value, mends), parsed, obeyed=False, mends=mends)


def label_of(answer: LabelsAnswer, clauses: Sequence[Clause]) -> Label:
    """The contract's label, as it was said; evidence as spans of the text, each once."""
    evidence = {
        Evidence(
            aspect=each.aspect,
            polarity=each.polarity,
            start=clause.start,
            end=clause.end,
            text=clause.text,
        ): None
        for each in answer.evidence
        for clause in [clauses[_index(each.clause)]]
    }
    states = {aspect: getattr(answer.aspects, aspect) for aspect in ASPECTS}
    return Label(
        sentiment=answer.sentiment,
        intensity=answer.intensity,
        emotions=tuple(answer.emotions),
        aspects={aspect: state for aspect, state in states.items() if state != "absent"},
        evidence=tuple(evidence),
    )


def bullet_of(answer: BulletAnswer, points: Sequence[Point]) -> Bullet:
    """The contract's bullet; citations as review ids and verbatim spans."""
    return Bullet(
        text=answer.text, polarity=answer.polarity, evidence=_cited(answer.evidence, points)
    )


def strength_of(answer: StrengthAnswer, points: Sequence[Point]) -> Strength:
    """The contract's strength; citations as review ids and verbatim spans."""
    return Strength(
        aspect=answer.aspect, claim=answer.claim, evidence=_cited(answer.evidence, points)
    )


def _cited(references: Sequence[str], points: Sequence[Point]) -> tuple[Citation, ...]:
    """Each clause once, though it may stand in two lines for its two aspects or polarities."""
    cited = [points[_index(each)] for each in references]
    return tuple(
        dict.fromkeys(Citation(review_id=each.review_id, span=each.span) for each in cited)
    )


def _index(reference: str) -> int:
    return int(reference.removeprefix("#")) - 1


@cache
def _form(task: Task) -> dict[str, Any]:
    """A task's JSON Schema, with definitions put where they are used: not every decoder follows."""
    schema = ANSWERS[task].model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inlined(definitions[node["$ref"].rsplit("/", maxsplit=1)[-1]])
        return {k: inlined(v) for k, v in node.items() if k not in {"title", "description"}}

    form: dict[str, Any] = inlined(schema)
    return form
