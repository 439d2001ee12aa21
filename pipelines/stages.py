"""Stretches of steps that several graphs share, from labels to a split."""

from dataclasses import dataclass
from typing import Any

from kfp.dsl import PipelineTask

from components.ingest_labels import ingest_labels
from components.split_dataset import split_dataset
from components.validate_labels import validate_labels
from pipelines.placement import Placement, place


@dataclass(frozen=True)
class Labels:
    """The steps that make labels fit; each one's digest is its output "Output"."""

    validated: PipelineTask
    split: PipelineTask


def labels_to_validated(
    placement: Placement,
    *,
    labels: Any,
    labels_digest: Any,
    kind: Any,
    mapping: Any,
    guideline_version: Any,
    policy: Any,
) -> PipelineTask:
    """Ingest and validate."""
    ingested = ingest_labels(
        source=labels,
        kind=kind,
        mapping=mapping,
        guideline_version=guideline_version,
        source_digest=labels_digest,
    )
    validated = validate_labels(
        snapshot=ingested.outputs["snapshot"],
        policy=policy,
        inputs=ingested.outputs["Output"],
    )
    place(ingested, placement)
    place(validated, placement)
    return validated


def labels_to_split(
    placement: Placement,
    *,
    labels: Any,
    labels_digest: Any,
    kind: Any,
    mapping: Any,
    guideline_version: Any,
    policy: Any,
    group_by: Any,
    validation_share: Any,
    test_share: Any,
    seed: Any,
) -> Labels:
    """Ingest, validate and split."""
    validated = labels_to_validated(
        placement,
        labels=labels,
        labels_digest=labels_digest,
        kind=kind,
        mapping=mapping,
        guideline_version=guideline_version,
        policy=policy,
    )
    split = split_dataset(
        validated=validated.outputs["validated"],
        group_by=group_by,
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
        inputs=validated.outputs["Output"],
    )
    place(split, placement)
    return Labels(validated, split)
