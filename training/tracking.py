"""A training run in MLflow: settings, data, environment and curves."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

from data.manifest import read_manifest
from data.settings import flat
from serving.language_folder import ADAPTER_KIND, LANGUAGE_MODEL_KIND
from serving.model_folder import MODEL_KIND
from serving.registry.connection import connect, log_run
from training.language_recipe import LanguageRecipe
from training.pretraining import ENCODER_KIND
from training.recipe import Recipe

EXPERIMENT: Final = "matjip-training"
RECORDED: Final = (
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "accelerate",
    "trl",
    "peft",
    "bitsandbytes",
)


def environment() -> dict[str, str]:
    """Versions that decide what a run makes."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in RECORDED},
    }


def track_training(tracking_uri: str, model: Path, encoder: Path, recipe: Recipe) -> str:
    """Record a training run; the same model is recorded once. Returns MLflow's run id.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    manifest, source = read_manifest(model, MODEL_KIND), read_manifest(encoder, ENCODER_KIND)
    facts = manifest.facts
    curves = {**source.facts.get("curves", {}), "fine-tuning": facts["curve"]}
    return log_run(
        connect(tracking_uri),
        experiment=EXPERIMENT,
        run_name=f"{recipe.name}-{manifest.digest[:8]}",
        params=flat(recipe.model_dump()) | facts["lengths"] | facts["labelled"],
        metrics={
            f"loss/{stage.replace(' ', '_')}": [(int(step), float(loss)) for step, loss in curve]
            for stage, curve in curves.items()
            if curve
        },
        tags={
            "snapshot_id": str(facts["snapshot_id"]),
            "split_digest": facts["split_digest"],
            "encoder_digest": facts["encoder_digest"],
            "model_digest": manifest.digest,
            **{f"environment.{name}": value for name, value in environment().items()},
        },
        artifacts={},
        idempotency_key=f"training:{manifest.digest}",
    )


def track_language_training(
    tracking_uri: str, adapter: Path, base: Path, recipe: LanguageRecipe
) -> str:
    """Record the training of an adapter, and of its base if that was made on the spot.

    The same adapter is recorded once. Returns MLflow's run id.

    Raises:
        RegistryError: MLflow cannot be reached.
    """
    manifest, parent = (
        read_manifest(adapter, ADAPTER_KIND),
        read_manifest(base, LANGUAGE_MODEL_KIND),
    )
    facts = manifest.facts
    curves = {"base": parent.facts.get("curve", []), "fine-tuning": facts["curve"]}
    metrics = {
        f"loss/{stage}": [(int(step), float(loss)) for step, loss in curve]
        for stage, curve in curves.items()
        if curve
    }
    return log_run(
        connect(tracking_uri),
        experiment=EXPERIMENT,
        run_name=f"{recipe.name}-{manifest.digest[:8]}",
        params=flat(recipe.model_dump()) | flat({"lengths": facts["lengths"]}),
        metrics=metrics | {"tokens_per_s": [(0, float(facts["tokens_per_s"]))]},
        tags={
            "snapshot_id": str(facts["snapshot_id"]),
            "targets_digest": facts["targets_digest"],
            "base_digest": facts["base_digest"],
            "model_digest": manifest.digest,
            **{f"prompt.{task}": version for task, version in facts["prompts"].items()},
            **{f"environment.{name}": value for name, value in environment().items()},
        },
        artifacts={},
        idempotency_key=f"training:{manifest.digest}",
    )
