"""An embedding model, with its evidence, into MLflow's registry."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def register_embedding(
    split: Input[Dataset],
    model: Input[Model],
    evaluation: Input[Dataset],
    tensorrt: Input[Dataset],
    recipe: str,
    tracking_uri: str,
    model_name: str,
    inputs: str,
    registration: Output[Dataset],
) -> str:
    """Register a version, whatever its evaluation said; returns the digest."""
    from pathlib import Path

    from training.embedding_delivery import register_embedding as register
    from training.embedding_recipe import parse_embedding_recipe

    manifest = register(
        tracking_uri,
        model_name,
        model=Path(model.path),
        split=Path(split.path),
        evaluation=Path(evaluation.path),
        tensorrt=Path(tensorrt.path),
        recipe=parse_embedding_recipe(recipe),
        out=Path(registration.path),
    )
    registration.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
