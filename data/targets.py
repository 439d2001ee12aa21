"""Targets: a split and written summaries to what a language model is taught, and tested on.

Comes in: an artifact of kind ``split``, and a file of summaries (data/summaries.py). Goes out: one
of kind ``targets`` with ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` (an example a
line), ``summaries.jsonl`` (those that stand, each in one part) and ``quarantine.jsonl``. An example
whose target cannot be written in the task's form is quarantined with its reason, never bent.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data.artifacts import QUARANTINE_NAME, SPLIT_KIND, TARGETS_KIND
from data.contract import LabelledReview, RestaurantSummary
from data.examples import (
    Example,
    labels_example,
    points_of,
    read_examples,
    write_examples,
)
from data.leakage import read_parts
from data.manifest import (
    Manifest,
    file_sha256,
    read_manifest,
    start_artifact,
    write_manifest,
    write_text_atomically,
)
from data.prompts import TASKS, prompt_version
from data.quarantine import QuarantinedRow, RowError, reason_counts, write_quarantine
from data.summaries import Summaries, quarantined_summary, read_summaries
from data.summary_targets import summary_examples

__all__ = [
    "SUMMARIES_NAME",
    "Example",
    "build_targets",
    "labels_example",
    "points_of",
    "read_examples",
    "summary_examples",
    "write_examples",
]

SUMMARIES_NAME: Final = "summaries.jsonl"
_Parts = Mapping[str, Sequence[LabelledReview]]


def build_targets(split: Path, summaries: Path | None, out: Path) -> Manifest:
    """Build the examples of every part.

    Args:
        split: its training part is what may be learnt from.
        summaries: none where there are none; the model then learns labels alone.
        out: the folder to write.

    Raises:
        ArtifactError: the split is not whole, or ``out`` cannot be written.
        SourceError: the summaries cannot be read.
    """
    source = read_manifest(split, SPLIT_KIND)
    parts = read_parts(split)
    reviews = {row.review.review_id: row for rows in parts.values() for row in rows}
    written = read_summaries(summaries, reviews) if summaries else Summaries()
    quarantine = list(written.quarantined)
    examples = {name: list(_label_examples(rows, quarantine)) for name, rows in parts.items()}
    standing: dict[str, list[RestaurantSummary]] = {name: [] for name in parts}
    for summary, name, found in _summary_examples(parts, written, quarantine):
        examples[name] += found
        standing[name].append(summary)
    start_artifact(out)
    for name, found in examples.items():
        write_examples(out / f"{name}.jsonl", found)
    lines = [each.model_dump_json() for mine in standing.values() for each in mine]
    write_text_atomically(out / SUMMARIES_NAME, "".join(f"{line}\n" for line in lines))
    write_quarantine(out / QUARANTINE_NAME, quarantine)
    return write_manifest(
        out,
        TARGETS_KIND,
        {
            "examples": {name: _task_counts(found) for name, found in examples.items()},
            "restaurants": {name: len(mine) for name, mine in standing.items()},
            "snapshot_id": source.facts["snapshot_id"],
            "split_digest": source.digest,
            "summaries": file_sha256(summaries) if summaries else None,
            "prompts": {task: prompt_version(task) for task in TASKS},
            "reasons": reason_counts(quarantine),
            "quarantined": len(quarantine),
        },
    )


def _label_examples(
    rows: Sequence[LabelledReview], quarantine: list[QuarantinedRow]
) -> Iterator[Example]:
    for number, row in enumerate(rows):
        try:
            yield labels_example(row)
        except RowError as error:
            quarantine.append(
                QuarantinedRow(
                    row=number,
                    review_id=row.review.review_id,
                    reason=error.reason,
                    detail=str(error),
                    step="targets",
                    source=row.model_dump(mode="json"),
                )
            )


def _summary_examples(
    parts: _Parts, written: Summaries, quarantine: list[QuarantinedRow]
) -> Iterator[tuple[RestaurantSummary, str, list[Example]]]:
    """Each summary that stands, with its part and its examples."""
    for summary in written.accepted.values():
        try:
            name, reviews = _only_part(parts, summary.restaurant_id)
            yield summary, name, summary_examples(summary, reviews)
        except RowError as error:
            row = written.rows[summary.restaurant_id]
            source: Any = summary.model_dump(mode="json")
            quarantine.append(quarantined_summary(row, error, source))


def _only_part(parts: _Parts, restaurant_id: str) -> tuple[str, list[LabelledReview]]:
    """The part that a restaurant's reviews stand in, and the reviews."""
    mine = {
        name: [row for row in rows if row.review.restaurant_id == restaurant_id]
        for name, rows in parts.items()
    }
    found = [name for name, rows in mine.items() if rows]
    if len(found) > 1:
        raise RowError(
            "bad_restaurant",
            f"restaurant {restaurant_id!r} has reviews in {' and '.join(found)}, so its summary "
            "would carry one into the other; split by restaurant",
        )
    return found[0], mine[found[0]]


def _task_counts(examples: Sequence[Example]) -> dict[str, int]:
    counts = Counter(example.task for example in examples)
    return {task: counts[task] for task in TASKS}
