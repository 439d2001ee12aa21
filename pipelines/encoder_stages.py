"""Stretches of steps from a split to a classifier that serves."""

from dataclasses import dataclass
from typing import Any

from kfp.dsl import PipelineTask

from components.deploy_challenger import deploy_challenger
from components.evaluate_sentiment import evaluate_sentiment
from components.export_onnx import export_onnx
from components.gate_model import gate_model
from components.pretrain_encoder import pretrain_encoder
from components.quantize_encoder import quantize_encoder
from components.register_model import register_model
from components.train_sentiment import train_sentiment
from pipelines.placement import Placement, place
from pipelines.stages import Labels


@dataclass(frozen=True)
class Models:
    """The steps that make a model; each one's digest is its output "Output"."""

    trained: PipelineTask
    exported: PipelineTask
    quantized: PipelineTask


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


def split_to_challenger(
    placement: Placement,
    labelled: Labels,
    *,
    recipe: Any,
    checkpoints: Any,
    tracking_uri: Any,
    threads: Any,
    model_name: Any,
    evaluation_settings: Any,
    gate_policy: Any,
    challenger_share: Any,
    models: Any,
) -> None:
    """Make a classifier, measure, judge, register and deploy it."""
    split = labelled.split.outputs["split"]
    made = split_to_models(
        placement,
        labelled.split,
        recipe=recipe,
        checkpoints=checkpoints,
        tracking_uri=tracking_uri,
        threads=threads,
        corpus_from_split=False,
    )
    evaluated = evaluate_sentiment(
        split=split,
        exported=made.exported.outputs["exported"],
        quantized=made.quantized.outputs["quantized"],
        tracking_uri=tracking_uri,
        model_name=model_name,
        settings=evaluation_settings,
        inputs=f"{made.exported.outputs['Output']} {made.quantized.outputs['Output']}",
    )
    gated = gate_model(
        evaluation=evaluated.outputs["evaluation"],
        policy=gate_policy,
        recipe=recipe,
        inputs=evaluated.outputs["Output"],
    )
    registered = register_model(
        validated=labelled.validated.outputs["validated"],
        recipe=recipe,
        split=split,
        exported=made.exported.outputs["exported"],
        quantized=made.quantized.outputs["quantized"],
        evaluation=evaluated.outputs["evaluation"],
        gate=gated.outputs["gate"],
        tracking_uri=tracking_uri,
        model_name=model_name,
        inputs=gated.outputs["Output"],
    )
    deployed = deploy_challenger(
        registration=registered.outputs["registration"],
        tracking_uri=tracking_uri,
        model_name=model_name,
        challenger_share=challenger_share,
        models=models,
        inputs=registered.outputs["Output"],
    )
    for task in (evaluated, gated, registered, deployed):
        place(task, placement)
