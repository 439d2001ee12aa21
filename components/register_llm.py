"""Both versions of a language model, with prompts and evidence, into MLflow's registry."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def register_llm(
    validated: Input[Dataset],
    split: Input[Dataset],
    merged: Input[Model],
    quantized: Input[Model],
    evaluation: Input[Dataset],
    gate: Input[Dataset],
    recipe: str,
    tracking_uri: str,
    model_name: str,
    inputs: str,
    registration: Output[Dataset],
) -> str:
    """Register; the alias `challenger` is set only by a gate that passed. Returns the digest."""
    from pathlib import Path

    from training.language_delivery import register_language_candidate
    from training.language_recipe import parse_language_recipe

    manifest = register_language_candidate(
        tracking_uri,
        model_name,
        validated=Path(validated.path),
        split=Path(split.path),
        merged=Path(merged.path),
        quantized=Path(quantized.path),
        evaluation=Path(evaluation.path),
        gate=Path(gate.path),
        recipe=parse_language_recipe(recipe),
        out=Path(registration.path),
    )
    registration.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
