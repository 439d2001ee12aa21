"""Both versions of the candidate, with their evidence, into MLflow's registry."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def register_model(
    validated: Input[Dataset],
    split: Input[Dataset],
    exported: Input[Model],
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

    from training.delivery import register_candidate
    from training.recipe import parse_recipe

    manifest = register_candidate(
        tracking_uri,
        model_name,
        validated=Path(validated.path),
        split=Path(split.path),
        exported=Path(exported.path),
        quantized=Path(quantized.path),
        evaluation=Path(evaluation.path),
        gate=Path(gate.path),
        recipe=parse_recipe(recipe),
        out=Path(registration.path),
    )
    registration.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
