"""A split and an encoder to the fine-tuned multi-task classifier."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def train_sentiment(
    split: Input[Dataset],
    encoder: Input[Model],
    recipe: str,
    checkpoints: str,
    tracking_uri: str,
    inputs: str,
    model: Output[Model],
) -> str:
    """Fine-tune and calibrate; parameters and curve go to MLflow; returns the model's digest."""
    from pathlib import Path

    from training.recipe import parse_recipe
    from training.sentiment import train_sentiment as train
    from training.tracking import track_training

    parsed = parse_recipe(recipe)
    manifest = train(
        Path(split.path),
        Path(encoder.path),
        parsed,
        Path(model.path),
        checkpoints=Path(checkpoints),
    )
    run_id = track_training(tracking_uri, Path(model.path), Path(encoder.path), parsed)
    model.metadata.update({"digest": manifest.digest, "inputs": inputs, "mlflow_run": run_id})
    return manifest.digest
