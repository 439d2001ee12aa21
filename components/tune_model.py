"""A recipe and a search space to the best recipe that some trials found."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def tune_model(
    data: Input[Dataset],
    start: Input[Model],
    kind: str,
    recipe: str,
    space: str,
    trials: int,
    wall_minutes: float,
    pruner: str,
    seed: int,
    checkpoints: str,
    tracking_uri: str,
    inputs: str,
    tuned: Output[Dataset],
    summary: Output[Markdown],
) -> str:
    """Tune a classifier (``kind`` encoder) or a language model (language); returns the best recipe.

    ``data`` is a split and ``start`` an encoder, or targets and a base. ``space`` is YAML text
    (training/search_space.py), and so is what comes back; the training step takes it. Trials and
    plot are in the artifact and in MLflow.
    """
    import shutil
    from pathlib import Path

    from training.tuning import tune
    from training.tuning_tracking import track_tuning

    manifest = tune(
        kind,  # type: ignore[arg-type]  # checked there; KFP knows no Literal
        recipe,
        space,
        data=Path(data.path),
        start=Path(start.path),
        out=Path(tuned.path),
        checkpoints=Path(checkpoints),
        trials=trials,
        wall_minutes=wall_minutes,
        pruner=pruner,  # type: ignore[arg-type]  # checked there; KFP knows no Literal
        seed=seed,
    )
    run_id = track_tuning(tracking_uri, Path(tuned.path))
    shutil.copyfile(Path(tuned.path) / "trials.md", summary.path)
    tuned.metadata.update({"digest": manifest.digest, "inputs": inputs, "mlflow_run": run_id})
    return (Path(tuned.path) / "best_recipe.yaml").read_text(encoding="utf-8")
