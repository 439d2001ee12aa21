"""Quarantined rows on their way back to the labellers: as tasks that Label Studio imports."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from data.artifacts import ANNOTATIONS_NAME, RESTAURANTS_NAME
from data.contract import Label, LabelledReview, Restaurant
from data.label_schema import Failures
from data.privacy import mask_source, mask_text
from data.quarantine import QuarantinedRow
from data.sources.label_studio import export_tasks


def labelling_tasks(rows: Iterable[QuarantinedRow]) -> list[dict[str, Any]]:
    """Quarantined rows as tasks that Label Studio imports, with the reason beside the text.

    What an annotator said before comes back as a prediction, so that it is a start and not lost.
    """
    tasks = []
    for row in rows:
        source = row.source if isinstance(row.source, dict) else {"source": row.source}
        data = source.get("data", source.get("review", source))
        data = dict(data) if isinstance(data, dict) else {"source": data}
        data.setdefault("text", "")
        data |= {"quarantine_reason": row.reason, "quarantine_detail": row.detail}
        task: dict[str, Any] = {"data": data}
        annotations = source.get("annotations")
        results = [
            annotation["result"]
            for annotation in (annotations if isinstance(annotations, list) else [])
            if isinstance(annotation, dict) and annotation.get("result")
        ]
        if results:
            task["predictions"] = [
                {"model_version": "before_quarantine", "result": result} for result in results
            ]
        tasks.append(task)
    return tasks


def read_restaurants(snapshot: Path) -> dict[str, Restaurant]:
    """The restaurants of a snapshot, by id."""
    lines = (snapshot / RESTAURANTS_NAME).read_bytes().splitlines()
    restaurants = [Restaurant.model_validate_json(line) for line in lines]
    return {restaurant.restaurant_id: restaurant for restaurant in restaurants}


def mask_row(row: QuarantinedRow) -> QuarantinedRow:
    """A quarantined row with the personal data in its source and detail masked."""
    masked = {"detail": mask_text(row.detail)[0], "source": mask_source(row.source)}
    return row.model_copy(update=masked)


def refused_rows(
    rows: Sequence[LabelledReview],
    failures: Failures,
    snapshot: Path,
    restaurants: dict[str, Restaurant],
    *,
    mask: bool,
) -> list[QuarantinedRow]:
    """Rows of a snapshot that validation refused; the source is a task with every annotation.

    Args:
        rows: of the snapshot, masked if they are to be.
        failures: why rows are refused, by position in ``rows``; the first reason stands.
        mask: whether the tasks' other strings are masked too.
    """
    refused = {rows[position].review.review_id for position in failures}
    annotations: dict[str, list[dict[str, Any]]] = {}
    numbers: dict[str, int] = {}
    with (snapshot / ANNOTATIONS_NAME).open("rb") as file:
        for line in map(orjson.loads, file):
            if line["review_id"] in refused:
                annotations.setdefault(line["review_id"], []).append(line)
                numbers[line["review_id"]] = line["row"]
    found = []
    for position, reasons in sorted(failures.items()):
        review = rows[position].review
        source = _as_task(rows[position], annotations.get(review.review_id, []), restaurants)
        found.append(
            QuarantinedRow(
                row=numbers.get(review.review_id, position),
                review_id=review.review_id,
                reason=reasons[0][0],
                detail="; also ".join(detail for _, detail in reasons),
                step="validate",
                source=mask_source(source) if mask else source,
            )
        )
    return found


def _as_task(
    row: LabelledReview, annotations: Sequence[dict[str, Any]], restaurants: dict[str, Restaurant]
) -> dict[str, Any]:
    said = []
    for line in annotations:
        when = datetime.fromisoformat(line["annotated_at"]) if line["annotated_at"] else None
        label = Label.model_validate(line["label"])
        # Spans are read again from the text, which may be masked by now; offsets hold.
        evidence = tuple(
            each.model_copy(update={"text": row.review.text[each.start : each.end]})
            for each in label.evidence
        )
        said.append((line["annotator"], label.model_copy(update={"evidence": evidence}), when))
    restaurant = restaurants.get(row.review.restaurant_id or "")
    return export_tasks([(row.review, restaurant, said)])[0]
