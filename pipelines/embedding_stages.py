"""The stretch of steps from a split to an embedding model that serves."""

from typing import Any

from components.check_tensorrt import check_tensorrt
from components.deploy_embedding import deploy_embedding
from components.evaluate_embedding import evaluate_embedding
from components.export_embedding import export_embedding
from components.quantize_embedding import quantize_embedding
from components.register_embedding import register_embedding
from components.train_embedding import train_embedding
from pipelines.placement import Placement, place
from pipelines.stages import Labels


def split_to_embedding(
    placement: Placement,
    labelled: Labels,
    *,
    recipe: Any,
    recipe_files_digest: Any,
    checkpoints: Any,
    tracking_uri: Any,
    threads: Any,
    max_batch: Any,
    model_name: Any,
    evaluation_settings: Any,
    evaluation_files_digest: Any,
    models: Any,
) -> None:
    """Make an embedding model, export, quantise, measure, register and deploy it."""
    split = labelled.split.outputs["split"]
    trained = train_embedding(
        split=split,
        recipe=recipe,
        files_digest=recipe_files_digest,
        checkpoints=checkpoints,
        inputs=labelled.split.outputs["Output"],
    )
    exported = export_embedding(
        model=trained.outputs["model"],
        split=split,
        threads=threads,
        inputs=trained.outputs["Output"],
    )
    quantized = quantize_embedding(
        exported=exported.outputs["exported"],
        split=split,
        recipe=recipe,
        threads=threads,
        inputs=exported.outputs["Output"],
    )
    checked = check_tensorrt(
        model=quantized.outputs["quantized"],
        recipe=recipe,
        max_batch=max_batch,
        inputs=quantized.outputs["Output"],
    )
    evaluated = evaluate_embedding(
        split=split,
        model=quantized.outputs["quantized"],
        settings=evaluation_settings,
        files_digest=evaluation_files_digest,
        inputs=quantized.outputs["Output"],
    )
    registered = register_embedding(
        split=split,
        model=quantized.outputs["quantized"],
        evaluation=evaluated.outputs["evaluation"],
        tensorrt=checked.outputs["check"],
        recipe=recipe,
        tracking_uri=tracking_uri,
        model_name=model_name,
        inputs=f"{evaluated.outputs['Output']} {checked.outputs['Output']}",
    )
    deployed = deploy_embedding(
        registration=registered.outputs["registration"],
        tracking_uri=tracking_uri,
        version="",
        models=models,
        inputs=registered.outputs["Output"],
    )
    for task in (trained, exported, quantized, checked, evaluated, registered, deployed):
        place(task, placement)
