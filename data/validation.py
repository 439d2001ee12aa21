"""Validate: a snapshot to rows that may be trained on, and everything else with its reason.

Comes in: an artifact of kind ``snapshot``. Goes out: one of kind ``validated`` with masked
``reviews.jsonl``, ``quarantine.jsonl`` (ingest's rows and its own), ``quarantine.json`` (the same
as tasks for Label Studio), ``label_issues.jsonl`` (ranked), ``duplicates.jsonl`` (groups that the
split keeps together) and ``report.html``. Rows in = accepted + quarantined over both steps.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.artifacts import (
    DUPLICATES_NAME,
    LABEL_ISSUES_NAME,
    QUARANTINE_NAME,
    RELABEL_NAME,
    REPORT_NAME,
    RESTAURANTS_NAME,
    REVIEWS_NAME,
    SNAPSHOT_KIND,
    VALIDATED_KIND,
    class_balance,
)
from data.contract import LabelledReview, Restaurant
from data.errors import DataUnfitError
from data.label_schema import Failures, frame_of, label_schema, schema_failures
from data.manifest import (
    Manifest,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_json,
    write_labelled_reviews,
    write_manifest,
    write_text_atomically,
)
from data.near_duplicates import groups_of, near_duplicate_pairs
from data.privacy import mask_review
from data.quality import (
    contradictions,
    likely_label_errors,
    text_flags,
)
from data.quarantine import (
    QuarantinedRow,
    dump_lines,
    read_quarantine,
    reason_counts,
    write_quarantine,
)
from data.relabelling import labelling_tasks, mask_row, read_restaurants, refused_rows
from data.text import normalised
from data.validation_policy import ValidationPolicy
from data.validation_report import render_report

__all__ = ["ValidationPolicy", "validate_labels"]


@dataclass(frozen=True)
class Findings:
    """What the report shows and the manifest keeps.

    Attributes:
        groups: near-duplicates, as positions in ``accepted``.
        similarity: of the least alike pair that ties each group.
        issues: lines of ``label_issues.jsonl``.
        not_sought: why likely label errors were not sought, if so.
    """

    accepted: list[LabelledReview]
    quarantine: list[QuarantinedRow]
    masked: dict[str, int]
    groups: list[list[int]]
    similarity: list[float]
    issues: list[dict[str, Any]]
    not_sought: str | None
    flags: dict[str, int]


def validate_labels(snapshot: Path, out: Path, policy: ValidationPolicy) -> Manifest:
    """Validate a snapshot.

    Raises:
        ArtifactError: the snapshot is missing, cut short or altered, or ``out`` cannot be written.
        ContractError: the snapshot is of another major version of the contract.
        DataUnfitError: no row was accepted, or all have one sentiment; the quarantine and the
            report are written all the same, and no manifest.
    """
    ingested = read_manifest(snapshot, SNAPSHOT_KIND)
    findings = _find(snapshot, policy)
    facts = _facts(findings, ingested, policy)
    _write(findings, facts, snapshot, out)
    _check_fit(findings, facts)
    return write_manifest(out, VALIDATED_KIND, facts)


def _find(snapshot: Path, policy: ValidationPolicy) -> Findings:
    rows = list(read_labelled_reviews(snapshot / REVIEWS_NAME))
    restaurants = read_restaurants(snapshot)
    issues: list[dict[str, Any]] = []
    masked: Counter[str] = Counter()
    if policy.mask_personal_data:
        for position, row in enumerate(rows):
            rows[position], counts = mask_review(row)
            masked.update(counts)
    failures = _failures(rows, restaurants, policy, issues)
    accepted = [row for position, row in enumerate(rows) if position not in failures]
    quarantine = [
        *(
            mask_row(row) if policy.mask_personal_data else row
            for row in read_quarantine(snapshot / QUARANTINE_NAME)
        ),
        *refused_rows(rows, failures, snapshot, restaurants, mask=policy.mask_personal_data),
    ]
    pairs = near_duplicate_pairs(
        [row.review.text for row in accepted], policy.near_duplicate_threshold
    )
    groups = groups_of(pairs, len(accepted))
    lowest: dict[int, float] = {}
    group_of = {position: number for number, group in enumerate(groups) for position in group}
    for pair in pairs:
        number = group_of[pair.first]
        lowest[number] = min(lowest.get(number, 1.0), pair.similarity)
    errors, not_sought = _likely_errors(accepted, policy)
    return Findings(
        accepted=accepted,
        quarantine=quarantine,
        masked=dict(sorted(masked.items())),
        groups=groups,
        similarity=[lowest[number] for number in range(len(groups))],
        issues=[dict(rank=rank, **issue) for rank, issue in enumerate([*issues, *errors], start=1)],
        not_sought=not_sought,
        flags=dict(Counter(flag for row in accepted for flag in text_flags(row.review.text))),
    )


def _failures(
    rows: Sequence[LabelledReview],
    restaurants: dict[str, Restaurant],
    policy: ValidationPolicy,
    issues: list[dict[str, Any]],
) -> Failures:
    """Why rows are refused; contradictions that the policy only lists are added to ``issues``."""
    schema = label_schema(
        min_characters=policy.min_characters,
        max_characters=policy.max_characters,
        earliest=policy.earliest,
        latest=policy.latest,
        restaurants=frozenset(restaurants) if policy.require_restaurant else None,
    )
    failures: Failures = schema_failures(frame_of(rows), schema) if rows else {}
    for position, row in enumerate(rows):
        for found in contradictions(row.label):
            if found.code in policy.quarantine_contradictions:
                failures.setdefault(position, []).append(("label_contradiction", found.detail))
            else:
                issues.append(_issue(row, "contradiction", found.code, found.detail))
    if policy.exact_duplicates == "quarantine":
        _refuse_duplicates(rows, failures)
    return failures


def _refuse_duplicates(rows: Sequence[LabelledReview], failures: Failures) -> None:
    firsts: dict[str, LabelledReview] = {}
    for position, row in enumerate(rows):
        if position in failures:
            continue
        first = firsts.setdefault(normalised(row.review.text), row)
        if first is not row:
            same = "the same label" if first.label == row.label else "another label"
            detail = (
                f"the text of review {row.review.review_id!r} is that of "
                f"{first.review.review_id!r}, which has {same}; the first stands: delete one, "
                "or set exact_duplicates to 'keep'"
            )
            failures[position] = [("duplicate_text", detail)]


def _issue(row: LabelledReview, kind: str, code: str, detail: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "code": code,
        "review_id": row.review.review_id,
        "detail": detail,
        "text": row.review.text,
    }


def _likely_errors(
    accepted: Sequence[LabelledReview], policy: ValidationPolicy
) -> tuple[list[dict[str, Any]], str | None]:
    if not policy.label_errors:
        return [], "label_errors is off in the policy"
    found, not_sought = likely_label_errors(
        accepted, seed=policy.seed, most_rows=policy.label_error_rows
    )
    return [
        _issue(
            accepted[error.position],
            "likely_label_error",
            "sentiment",
            f"labelled {error.given!r}, a model that did not see it says {error.suggested!r} "
            f"(probability of the label {error.score:.2f}); read it again",
        )
        | {"given": error.given, "suggested": error.suggested, "score": error.score}
        for error in found
    ], not_sought


def _facts(findings: Findings, ingested: Manifest, policy: ValidationPolicy) -> dict[str, Any]:
    lengths = [len(row.review.text) for row in findings.accepted]
    in_groups = sum(len(group) for group in findings.groups)
    return {
        "snapshot_id": ingested.facts["snapshot_id"],
        "source": ingested.facts["source"],
        "rows_in": ingested.facts["rows_in"],
        "accepted": len(findings.accepted),
        "quarantined": len(findings.quarantine),
        "reasons": reason_counts(findings.quarantine),
        "masked": findings.masked,
        "class_balance": class_balance(findings.accepted),
        "labelled": {
            task: sum(getattr(row.label, task) is not None for row in findings.accepted)
            for task in ("sentiment", "intensity", "emotions", "aspects")
        },
        "characters": {
            f"p{share}": int(np.percentile(lengths, share)) for share in (5, 50, 95, 99, 100)
        }
        if lengths
        else {},
        "restaurants": len({row.review.restaurant_id for row in findings.accepted} - {None}),
        "near_duplicate_groups": len(findings.groups),
        "near_duplicate_rate": round(
            (in_groups - len(findings.groups)) / max(1, len(findings.accepted)), 4
        ),
        "label_issues": dict(Counter(issue["kind"] for issue in findings.issues)),
        "label_errors_not_sought": findings.not_sought,
        "text_flags": findings.flags,
        "agreement": ingested.facts["agreement"],
        "guideline_version": ingested.facts["guideline_version"],
        "policy": policy.model_dump(mode="json"),
    }


def _write(findings: Findings, facts: dict[str, Any], snapshot: Path, out: Path) -> None:
    start_artifact(out)
    write_labelled_reviews(out / REVIEWS_NAME, findings.accepted)
    write_text_atomically(
        out / RESTAURANTS_NAME, (snapshot / RESTAURANTS_NAME).read_text(encoding="utf-8")
    )
    write_quarantine(out / QUARANTINE_NAME, findings.quarantine)
    write_json(out / RELABEL_NAME, labelling_tasks(findings.quarantine))
    write_text_atomically(out / LABEL_ISSUES_NAME, dump_lines(findings.issues))
    ids = [row.review.review_id for row in findings.accepted]
    groups = (
        {"review_ids": [ids[position] for position in group], "similarity": similarity}
        for group, similarity in zip(findings.groups, findings.similarity, strict=True)
    )
    write_text_atomically(out / DUPLICATES_NAME, dump_lines(groups))
    texts = [row.review.text for row in findings.accepted]
    report = render_report(
        facts,
        quarantine=findings.quarantine,
        issues=findings.issues,
        texts=texts,
        groups=findings.groups,
    )
    write_text_atomically(out / REPORT_NAME, report)


def _check_fit(findings: Findings, facts: dict[str, Any]) -> None:
    reasons = ", ".join(f"{name}: {count}" for name, count in facts["reasons"].items()) or "none"
    if not findings.accepted:
        raise DataUnfitError(
            f"0 of {facts['rows_in']} rows were accepted (quarantined by reason: {reasons}); "
            f"mend the rows in {QUARANTINE_NAME} and ingest again"
        )
    classes = [name for name, count in facts["class_balance"]["sentiment"].items() if count]
    if len(classes) == 1:
        raise DataUnfitError(
            f"all {facts['labelled']['sentiment']} labelled rows are {classes[0]!r}, and one class "
            f"teaches nothing (quarantined by reason: {reasons}); label reviews of other sentiments"
        )
