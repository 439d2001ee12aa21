"""Stretches of steps that several graphs share: labels to a split, a split to what is trained."""

from dataclasses import dataclass
from typing import Any

from kfp.dsl import PipelineTask

from components.build_targets import build_targets
from components.export_onnx import export_onnx
from components.ingest_labels import ingest_labels
from components.pretrain_encoder import pretrain_encoder
from components.pretrain_llm import pretrain_llm
from components.quantize_encoder import quantize_encoder
from components.split_dataset import split_dataset
from components.train_sentiment import train_sentiment
from components.validate_labels import validate_labels
from pipelines.placement import Placement, place


@dataclass(frozen=True)
class Labels:
    """The steps that make labels fit; each one's digest is its output "Output"."""

    validated: PipelineTask
    split: PipelineTask


@dataclass(frozen=True)
class Taught:
    """The steps before a language model is fine-tuned."""

    targets: PipelineTask
    base: PipelineTask


@dataclass(frozen=True)
class Models:
    """The steps that make a model; each one's digest is its output "Output"."""

    trained: PipelineTask
    exported: PipelineTask
    quantized: PipelineTask


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


def split_to_base(
    placement: Placement,
    split: PipelineTask,
    *,
    summaries: Any,
    summaries_digest: Any,
    recipe: Any,
    checkpoints: Any,
) -> Taught:
    """What a language model is taught, and the base that it is taught to."""
    targets = build_targets(
        split=split.outputs["split"],
        summaries=summaries,
        summaries_digest=summaries_digest,
        inputs=split.outputs["Output"],
    )
    base = pretrain_llm(
        targets=targets.outputs["targets"],
        recipe=recipe,
        checkpoints=checkpoints,
        inputs=targets.outputs["Output"],
    )
    place(targets, placement)
    place(base, placement)
    return Taught(targets, base)


def split_to_models(
    placement: Placement,
    split: PipelineTask,
    *,
    recipe: Any,
    checkpoints: Any,
    tracking_uri: Any,
    threads: Any,
    corpus_from_split: bool,
) -> Models:
    """Pretrain, fine-tune, export and quantise.

    Without ``corpus_from_split`` the encoder learns from synthetic text alone, so that a label
    that changes leaves it as it is.
    """
    corpus = {"reviews": split.outputs["split"]} if corpus_from_split else {}
    encoder = pretrain_encoder(recipe=recipe, checkpoints=checkpoints, inputs="", **corpus)
    trained = train_sentiment(
        split=split.outputs["split"],
        encoder=encoder.outputs["encoder"],
        recipe=recipe,
        checkpoints=checkpoints,
        tracking_uri=tracking_uri,
        inputs=f"{split.outputs['Output']} {encoder.outputs['Output']}",
    )
    exported = export_onnx(
        model=trained.outputs["model"],
        split=split.outputs["split"],
        threads=threads,
        inputs=trained.outputs["Output"],
    )
    quantized = quantize_encoder(
        exported=exported.outputs["exported"],
        split=split.outputs["split"],
        threads=threads,
        inputs=exported.outputs["Output"],
    )
    for task in (encoder, trained, exported, quantized):
        place(task, placement)
    return Models(trained, exported, quantized)
