"""A base and targets to an adapter, by QLoRA."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def train_llm(
    targets: Input[Dataset],
    base: Input[Model],
    recipe: str,
    checkpoints: str,
    tracking_uri: str,
    inputs: str,
    adapter: Output[Model],
) -> str:
    """Fine-tune on the answers alone; the curve goes to MLflow; returns the adapter's digest."""
    from pathlib import Path

    from training.language_recipe import parse_language_recipe
    from training.llm import train_language_model
    from training.tracking import track_language_training

    parsed = parse_language_recipe(recipe)
    manifest = train_language_model(
        Path(targets.path),
        Path(base.path),
        parsed,
        Path(adapter.path),
        checkpoints=Path(checkpoints),
    )
    run_id = track_language_training(tracking_uri, Path(adapter.path), Path(base.path), parsed)
    adapter.metadata.update({"digest": manifest.digest, "inputs": inputs, "mlflow_run": run_id})
    return manifest.digest
