"""Labels from a Label Studio export file; and reviews written as an export.

A task's ``data`` holds ``text``, ``review_id``, and where known ``restaurant_id`` or a whole
``restaurant``, ``written_on`` and ``contract_version``. One bad task is quarantined with its
reason and never fails the rest; a source that cannot be read at all is a ``SourceError``.

Source of the format: Label Studio's JSON export.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data.contract import (
    CONTRACT_VERSION,
    Label,
    Restaurant,
    Review,
    check_contract_version,
)
from data.errors import SourceError
from data.labelling import from_result, to_result
from data.quarantine import RowError, row_error, shown
from data.sources.rows import (
    Annotation,
    Rows,
    SourceRow,
    encodable,
    quarantined,
    read_moment,
    read_review,
)


def read_export(path: Path) -> Rows:
    """Rows of a Label Studio JSON export.

    Raises:
        SourceError: the file is missing, empty, not UTF-8 beyond repair, or not an export.
        ContractError: a task was labelled under another major version of the contract.
    """
    tasks = _load_export(path)
    yield from read_tasks(tasks, where=path.name)


def _load_export(path: Path) -> list[object]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"cannot read {str(path)!r}: {error.strerror}; give the path of a Label Studio export"
        ) from error
    if not raw.strip():
        raise SourceError(f"{str(path)!r} is an empty file; export the project again as JSON")
    broken: UnicodeDecodeError | None = None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Undecodable bytes inside a string are kept as surrogates, so that only their task is lost.
        broken = error
        text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    try:
        tasks = json.loads(text)
    except json.JSONDecodeError as error:
        if broken is not None:
            raise SourceError(
                f"{str(path)!r} is not UTF-8: byte {broken.start} ({raw[broken.start]:#04x}) "
                "cannot be decoded, and the JSON around it is broken; export the project again"
            ) from error
        offset = len(text[: error.pos].encode())
        raise SourceError(
            f"{str(path)!r} is not JSON at byte {offset}: {error.msg}; the download may be cut "
            "short, export the project again as JSON"
        ) from error
    if not isinstance(tasks, list):
        raise SourceError(
            f"{str(path)!r} holds {type(tasks).__name__}, expected a list of tasks; "
            "export the project as JSON (not COCO, CSV or a single task)"
        )
    _check_not_minimal(tasks, path)
    return tasks


def _check_not_minimal(tasks: list[object], path: Path) -> None:
    if not tasks:
        raise SourceError(f"{str(path)!r} holds no tasks; label some reviews, then export again")
    if not any(isinstance(task, dict) and "data" in task for task in tasks):
        raise SourceError(
            f"{str(path)!r} holds no task with 'data', the first is {shown(tasks[0])}; "
            "export the project as JSON, not as JSON-MIN"
        )


def read_tasks(tasks: Iterable[object], *, where: str) -> Rows:
    """Rows of tasks as Label Studio exports them; ``where`` names the source in messages."""
    for number, task in enumerate(tasks):
        try:
            yield _read_task(number, task, where)
        except RowError as error:
            data = task.get("data") if isinstance(task, dict) else None
            review_id = data.get("review_id") if isinstance(data, dict) else None
            yield quarantined(number, review_id, error, task)


def _read_task(number: int, task: object, where: str) -> SourceRow:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise RowError(
            "wrong_type",
            f"task {number} is {shown(task)}, expected an object with data; export again",
        )
    data = task["data"]
    if (version := data.get("contract_version")) is not None:
        check_contract_version(str(version), where=f"{where}, task {number}")
    encodable(task, "task")
    restaurant = _read_restaurant(data)
    review = read_review(
        review_id=data.get("review_id"),
        text=data.get("text"),
        restaurant_id=restaurant.restaurant_id if restaurant else data.get("restaurant_id"),
        written_on=data.get("written_on"),
    )
    return SourceRow(number, review, _read_annotations(task, review.text), restaurant, task)


def _read_restaurant(data: dict[str, Any]) -> Restaurant | None:
    if data.get("restaurant") is None:
        return None
    try:
        restaurant = Restaurant.model_validate(data["restaurant"])
    except ValidationError as error:
        raise row_error(error, "restaurant") from error
    named = data.get("restaurant_id")
    if named is not None and str(named) != restaurant.restaurant_id:
        raise RowError(
            "bad_restaurant",
            f"restaurant_id is {shown(named)} but restaurant.restaurant_id is "
            f"{restaurant.restaurant_id!r}; give one of the two",
        )
    return restaurant


def _read_annotations(task: dict[str, Any], text: str) -> tuple[Annotation, ...]:
    listed = task.get("annotations")
    kept = [
        annotation
        for annotation in (listed if isinstance(listed, list) else [])
        if not (isinstance(annotation, dict) and annotation.get("was_cancelled"))
    ]
    if not kept:
        raise RowError("no_annotation", "the task has no finished annotation; label it")
    return tuple(_read_annotation(annotation, text) for annotation in kept)


def _read_annotation(annotation: object, text: str) -> Annotation:
    result = annotation.get("result") if isinstance(annotation, dict) else None
    if not isinstance(annotation, dict) or not isinstance(result, list):
        raise RowError(
            "wrong_type",
            f"an annotation is {shown(annotation)}, expected an object with a result list; "
            "export with full annotations",
        )
    annotator = annotation.get("completed_by")
    if isinstance(annotator, dict):
        annotator = annotator.get("id") or annotator.get("email")
    return Annotation(
        annotator=str(annotator) if annotator is not None else "unknown",
        label=from_result(result, text),
        annotated_at=read_moment(annotation.get("created_at"), "created_at"),
    )


def export_tasks(
    rows: Iterable[tuple[Review, Restaurant | None, Sequence[tuple[str, Label, datetime | None]]]],
) -> list[dict[str, Any]]:
    """Reviews with their annotations as a Label Studio JSON export.

    Args:
        rows: review, restaurant, and for each annotation: annotator, label, and when.

    Returns:
        Tasks as ``read_export`` reads them: ``json.dump`` them to a file.
    """
    tasks = []
    for number, (review, restaurant, annotations) in enumerate(rows, start=1):
        data: dict[str, Any] = review.model_dump(mode="json") | {
            "contract_version": CONTRACT_VERSION
        }
        if restaurant is not None:
            data["restaurant"] = restaurant.model_dump(mode="json")
        listed = [
            {
                "completed_by": annotator,
                "result": to_result(label, review.text),
                "was_cancelled": False,
                "created_at": when.isoformat() if when else None,
            }
            for annotator, label, when in annotations
        ]
        tasks.append({"id": number, "data": data, "annotations": listed})
    return tasks
