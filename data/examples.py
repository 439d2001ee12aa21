"""Examples: one prompt with its right answer, written and read; and those of labelled reviews.

An example whose answer cannot be written in the task's form is refused with its reason, never bent.
Those of written summaries are made in data/summary_targets.py.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from data.answers import (
    MAX_EVIDENCE,
    AspectStates,
    ClauseEvidence,
    LabelsAnswer,
    dump_answer,
)
from data.clauses import Clause, overlapping, split_clauses
from data.contract import (
    ASPECTS,
    POLARITIES,
    Aspect,
    Label,
    LabelledReview,
    Polarity,
)
from data.errors import ArtifactError
from data.manifest import write_text_atomically
from data.prompts import Message, Point, Task, labels_prompt
from data.quarantine import RowError


class Example(BaseModel):
    """One prompt and the answer that is taught for it.

    Attributes:
        about: the review's id, or the restaurant's.
        aspect: of an ``aspect`` example.
        numbered: how many lines or clauses the prompt numbers.
        answer: in the task's form, one line of JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    about: str
    aspect: Aspect | None = None
    numbered: int
    messages: list[Message]
    answer: str


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one example a line."""
    write_text_atomically(path, "".join(f"{each.model_dump_json()}\n" for each in examples))


def read_examples(path: Path) -> list[Example]:
    """Read what ``write_examples`` wrote.

    Raises:
        ArtifactError: the file is missing, or a line is not an example.
    """
    try:
        lines = path.read_bytes().splitlines()
        return [Example.model_validate_json(line) for line in lines]
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(path)!r} does not hold examples: {error}; build the targets again"
        ) from error


def labels_example(row: LabelledReview) -> Example:
    """The example of one labelled review.

    Raises:
        RowError: the text is blank, a task is not labelled, an aspect has no evidence (the model
            would be taught that there is none), or there is more evidence than an answer holds.
    """
    name, label = row.review.review_id, row.label
    clauses = split_clauses(row.review.text)
    if not clauses:
        raise RowError("missing_text", f"review {name!r} is blank; leave it out")
    if label.sentiment is None or label.intensity is None or label.emotions is None:
        raise _incomplete(name, "sentiment, intensity or emotions")
    if label.aspects is None:
        raise _incomplete(name, "aspects")
    spoken = {each.aspect for each in label.evidence}
    if bare := [aspect for aspect in label.aspects if aspect not in spoken]:
        raise _incomplete(name, f"evidence of {', '.join(bare)}")
    found = _clause_evidence(label, clauses)
    if len(found) > MAX_EVIDENCE:
        raise RowError(
            "target_too_long",
            f"review {name!r} has {len(found)!r} clauses of evidence, an answer holds "
            f"{MAX_EVIDENCE}; label the ones that matter",
        )
    answer = LabelsAnswer(
        evidence=[
            ClauseEvidence(clause=f"#{index + 1}", aspect=aspect, polarity=polarity)
            for index, aspect, polarity in found
        ],
        aspects=AspectStates.model_validate(dict.fromkeys(ASPECTS, "absent") | label.aspects),
        intensity=label.intensity,
        sentiment=label.sentiment,
        emotions=list(label.emotions),
    )
    return Example(
        task="labels",
        about=name,
        numbered=len(clauses),
        messages=labels_prompt(clauses),
        answer=dump_answer(answer),
    )


def points_of(rows: Iterable[LabelledReview]) -> list[Point]:
    """What labelled reviews say of aspects, clause by clause, oldest review first.

    Within a review they stand as its taught answer names them, so that a summary's prompt looks the
    same whether people labelled the reviews or a model did (serving/routing.py).
    """
    points: dict[Point, None] = {}
    dated = sorted(rows, key=lambda row: (str(row.review.written_on), row.review.review_id))
    for row in dated:
        clauses = split_clauses(row.review.text)
        for index, aspect, polarity in _clause_evidence(row.label, clauses):
            points[Point(row.review.review_id, clauses[index].text, aspect, polarity)] = None
    return list(points)


def _clause_evidence(label: Label, clauses: Sequence[Clause]) -> list[tuple[int, Aspect, Polarity]]:
    """A label's evidence by clause, each once, in the text's order and the taxonomy's."""
    found = {
        (index, each.aspect, each.polarity)
        for each in label.evidence
        for index in overlapping(clauses, each.start, each.end)
    }
    return sorted(
        found, key=lambda each: (each[0], ASPECTS.index(each[1]), POLARITIES.index(each[2]))
    )


def _incomplete(name: str, what: str) -> RowError:
    return RowError(
        "incomplete_label",
        f"review {name!r} lacks {what}; label it whole, or it is not taught to the language model",
    )
