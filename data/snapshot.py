"""Ingest: labels from any source to a frozen, content-addressed snapshot.

Comes in: a Label Studio export, a live project, or a table with a mapping. Goes out: a folder of
kind ``snapshot`` with ``reviews.jsonl`` (adjudicated), ``annotations.jsonl``, ``restaurants.jsonl``
and ``quarantine.jsonl``. Rows in = accepted + quarantined, always.

Annotator ids are replaced by a hash whose salt is the guideline version. These are pseudonyms, not
anonymity: who knows the ids and the version can compute them again. The salt keeps one annotator
one name within a guideline, so that agreement can be followed from snapshot to snapshot, and gives
another name under the next guideline.

Adjudication (data/gold/guideline.md): the first annotation by time stands, unless there is a third,
which was written in review of the first two; then the third stands.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from data.agreement import agreement, first_pairs
from data.artifacts import (
    ANNOTATIONS_NAME,
    QUARANTINE_NAME,
    RESTAURANTS_NAME,
    REVIEWS_NAME,
    SNAPSHOT_KIND,
)
from data.contract import CONTRACT_VERSION, Label, LabelledReview, Restaurant
from data.errors import SettingsError
from data.manifest import (
    Manifest,
    canonical_digest,
    file_sha256,
    start_artifact,
    write_labelled_reviews,
    write_manifest,
    write_text_atomically,
)
from data.quarantine import (
    QuarantinedRow,
    RowError,
    dump_lines,
    reason_counts,
    shown,
    write_quarantine,
)
from data.sources.label_studio import read_export
from data.sources.label_studio_server import read_server, split_project_url
from data.sources.rows import Annotation, Rows, SourceRow, quarantined
from data.sources.tables import parse_mapping, read_table

ADJUDICATION: Final = "first annotation by time, unless there is a third: then the third"
_THIRD: Final = 2
_LATEST: Final = datetime.max.replace(tzinfo=UTC)

SourceKind = Literal["label_studio_file", "label_studio_server", "table"]


def ingest_labels(
    source: str,
    kind: SourceKind,
    mapping: str | None,
    guideline_version: str,
    out: Path,
    *,
    token: str | None = None,
) -> Manifest:
    """Read labels from a source and freeze them as a snapshot.

    Args:
        source: path of a file, or the address of a Label Studio project.
        kind: what the source is.
        mapping: YAML text of a table's mapping (data/sources/tables.py); none for Label Studio.
        guideline_version: of the guideline the annotators followed; also the salt of their hashes.
        out: folder to write; its manifest comes last.
        token: for a server; without it, MATJIP_LABEL_STUDIO_TOKEN is read.

    Raises:
        SettingsError: the arguments or the mapping are wrong.
        SourceError: the source cannot be read.
        ContractError: the labels are of another major version of the contract.
        ArtifactError: the folder cannot be written.
    """
    rows, described = _open_source(source, kind, mapping, token)
    return ingest(rows, out, guideline_version=guideline_version, source=described)


def _open_source(
    source: str, kind: SourceKind, mapping: str | None, token: str | None
) -> tuple[Rows, str]:
    """The rows, and what the manifest says of where they came from: a content, never a place."""
    if kind == "label_studio_server":
        return read_server(source, token=token), f"{kind} project {split_project_url(source)[1]}"
    path = Path(source)
    digest = file_sha256(path)[:16] if path.is_file() else "missing"
    described = f"{kind} {path.name} sha256:{digest}"
    if kind == "label_studio_file":
        return read_export(path), described
    if kind == "table":
        if not mapping:
            raise SettingsError(
                f"kind 'table' needs a mapping, got {mapping!r}; give its YAML text"
            )
        columns = parse_mapping(mapping)
        mapped = canonical_digest(columns.model_dump(mode="json"))[:16]
        return read_table(path, columns), f"{described} mapping:{mapped}"
    raise SettingsError(
        f"kind is {kind!r}, known are label_studio_file, label_studio_server, table; choose one"
    )


def annotator_pseudonym(annotator: str, guideline_version: str) -> str:
    """The name that stands for an annotator in a snapshot (16 hex digits)."""
    salted = f"matjip annotator\0{guideline_version}\0{annotator}"
    return hashlib.sha256(salted.encode()).hexdigest()[:16]


@dataclass
class _Intake:
    """What has been read so far."""

    reviews: list[LabelledReview] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    restaurants: dict[str, Restaurant] = field(default_factory=dict)
    quarantine: list[QuarantinedRow] = field(default_factory=list)
    labels: list[Sequence[Label]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)


def ingest(
    rows: Iterable[SourceRow | QuarantinedRow], out: Path, *, guideline_version: str, source: str
) -> Manifest:
    """Freeze rows as a snapshot; ``source`` says in the manifest where they came from.

    Raises:
        SettingsError: the guideline version is empty.
        ArtifactError: the folder cannot be written.
    """
    if not guideline_version.strip():
        raise SettingsError(
            f"guideline_version is {guideline_version!r}; give the version the annotators followed"
        )
    intake = _Intake()
    for row in rows:
        if isinstance(row, QuarantinedRow):
            intake.quarantine.append(row)
            continue
        try:
            _take(intake, row, guideline_version)
        except RowError as error:
            refused = quarantined(row.row, row.review.review_id, error, row.source)
            intake.quarantine.append(refused)
    return _write(intake, out, guideline_version, source)


def _take(intake: _Intake, row: SourceRow, guideline_version: str) -> None:
    review = row.review
    if review.review_id in intake.seen:
        raise RowError(
            "duplicate_review_id",
            f"review_id is {review.review_id!r}, as in row {intake.seen[review.review_id]}; "
            "the first stands: give this review its own id, or delete it",
        )
    if row.restaurant is not None:
        known = intake.restaurants.get(row.restaurant.restaurant_id, row.restaurant)
        if known != row.restaurant:
            raise RowError(
                "bad_restaurant",
                f"restaurant {known.restaurant_id!r} is {shown(row.restaurant.model_dump())} here, "
                f"and was {shown(known.model_dump())} before; write it the same everywhere",
            )
        intake.restaurants[known.restaurant_id] = known
    intake.seen[review.review_id] = row.row
    # Annotations without a time come last, in the order they were given.
    in_time = sorted(row.annotations, key=lambda annotation: annotation.annotated_at or _LATEST)
    labels = [annotation.label for annotation in in_time]
    intake.labels.append(labels)
    intake.reviews.append(LabelledReview(review=review, label=adjudicate(labels)))
    intake.annotations.extend(_annotation_line(row, each, guideline_version) for each in in_time)


def adjudicate(labels: Sequence[Label]) -> Label:
    """The label that stands, from a review's labels in time's order."""
    return labels[_THIRD] if len(labels) > _THIRD else labels[0]


def _annotation_line(
    row: SourceRow, annotation: Annotation, guideline_version: str
) -> dict[str, Any]:
    when = annotation.annotated_at
    return {
        "row": row.row,
        "review_id": row.review.review_id,
        "annotator": annotator_pseudonym(annotation.annotator, guideline_version),
        "annotated_at": when.isoformat() if when else None,
        "label": annotation.label.model_dump(mode="json"),
    }


def _write(intake: _Intake, out: Path, guideline_version: str, source: str) -> Manifest:
    start_artifact(out)
    write_labelled_reviews(out / REVIEWS_NAME, intake.reviews)
    write_text_atomically(out / ANNOTATIONS_NAME, dump_lines(intake.annotations))
    restaurants = [intake.restaurants[key] for key in sorted(intake.restaurants)]
    write_text_atomically(
        out / RESTAURANTS_NAME, dump_lines(each.model_dump(mode="json") for each in restaurants)
    )
    write_quarantine(out / QUARANTINE_NAME, intake.quarantine)
    names = {row.review.restaurant_id for row in intake.reviews} - {None}
    identity = {
        "contract_version": CONTRACT_VERSION,
        "guideline_version": guideline_version,
        "files": [
            file_sha256(out / name) for name in (REVIEWS_NAME, ANNOTATIONS_NAME, RESTAURANTS_NAME)
        ],
    }
    pairs = first_pairs(intake.labels)
    facts = {
        "snapshot_id": canonical_digest(identity),
        "source": source,
        "rows_in": len(intake.reviews) + len(intake.quarantine),
        "accepted": len(intake.reviews),
        "quarantined": len(intake.quarantine),
        "reasons": reason_counts(intake.quarantine),
        "restaurants": len(names),
        "annotators": len({line["annotator"] for line in intake.annotations}),
        "annotations": len(intake.annotations),
        "labelled_twice": len(pairs),
        "agreement": agreement(pairs),
        "guideline_version": guideline_version,
        "adjudication": ADJUDICATION,
    }
    return write_manifest(out, SNAPSHOT_KIND, facts)
