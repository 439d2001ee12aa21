"""Stretches of steps from a split to a language model that serves."""

from dataclasses import dataclass
from typing import Any

from kfp.dsl import PipelineTask

from components.build_targets import build_targets
from components.compare_llm import compare_llm
from components.deploy_llm import deploy_llm
from components.evaluate_llm import evaluate_llm
from components.gate_llm import gate_llm
from components.merge_llm import merge_llm
from components.pretrain_llm import pretrain_llm
from components.quantize_llm import quantize_llm
from components.register_llm import register_llm
from components.train_llm import train_llm
from pipelines.placement import Placement, place
from pipelines.stages import Labels


@dataclass(frozen=True)
class Taught:
    """The steps before a language model is fine-tuned."""

    targets: PipelineTask
    base: PipelineTask


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


def split_to_language_model(
    placement: Placement,
    labelled: Labels,
    *,
    summaries: Any,
    summaries_digest: Any,
    recipe: Any,
    checkpoints: Any,
    tracking_uri: Any,
    model_name: Any,
    parity_settings: Any,
    evaluation_settings: Any,
    gate_policy: Any,
    challenger_share: Any,
    models: Any,
    base_url: Any,
) -> None:
    """Teach a language model, merge, quantise, measure, judge, register and deploy it."""
    split = labelled.split.outputs["split"]
    taught = split_to_base(
        placement,
        labelled.split,
        summaries=summaries,
        summaries_digest=summaries_digest,
        recipe=recipe,
        checkpoints=checkpoints,
    )
    trained = train_llm(
        targets=taught.targets.outputs["targets"],
        base=taught.base.outputs["base"],
        recipe=recipe,
        checkpoints=checkpoints,
        tracking_uri=tracking_uri,
        inputs=taught.base.outputs["Output"],
    )
    merged = merge_llm(
        adapter=trained.outputs["adapter"],
        base=taught.base.outputs["base"],
        inputs=trained.outputs["Output"],
    )
    quantized = quantize_llm(
        merged=merged.outputs["merged"],
        targets=taught.targets.outputs["targets"],
        split=split,
        recipe=recipe,
        inputs=merged.outputs["Output"],
    )
    compared = compare_llm(
        targets=taught.targets.outputs["targets"],
        base=taught.base.outputs["base"],
        adapter=trained.outputs["adapter"],
        merged=merged.outputs["merged"],
        quantized=quantized.outputs["quantized"],
        settings=parity_settings,
        served_url="",  # nobody serves it yet: `make compare-llm` asks who does later
        inputs=quantized.outputs["Output"],
    )
    evaluated = evaluate_llm(
        targets=taught.targets.outputs["targets"],
        split=split,
        merged=merged.outputs["merged"],
        quantized=quantized.outputs["quantized"],
        tracking_uri=tracking_uri,
        model_name=model_name,
        settings=evaluation_settings,
        inputs=compared.outputs["Output"],
    )
    gated = gate_llm(
        evaluation=evaluated.outputs["evaluation"],
        policy=gate_policy,
        inputs=evaluated.outputs["Output"],
    )
    registered = register_llm(
        validated=labelled.validated.outputs["validated"],
        split=split,
        merged=merged.outputs["merged"],
        quantized=quantized.outputs["quantized"],
        evaluation=evaluated.outputs["evaluation"],
        gate=gated.outputs["gate"],
        recipe=recipe,
        tracking_uri=tracking_uri,
        model_name=model_name,
        inputs=gated.outputs["Output"],
    )
    deployed = deploy_llm(
        registration=registered.outputs["registration"],
        tracking_uri=tracking_uri,
        model_name=model_name,
        challenger_share=challenger_share,
        models=models,
        base_url=base_url,
        inputs=registered.outputs["Output"],
    )
    for task in (trained, merged, quantized, compared, evaluated, gated, registered, deployed):
        place(task, placement)
