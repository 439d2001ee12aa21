"""Register a language model that was trained: the merged model and its quantised child."""

from pathlib import Path

from data.manifest import read_manifest
from data.settings import flat
from serving.language_folder import LANGUAGE_MODEL_KIND
from serving.registry.connection import Registry
from serving.registry.prompts import register_prompts
from serving.registry.signature import CHAT_SIGNATURE
from training.evaluation.language.evaluation import LANGUAGE_EVALUATION_KIND, METRICS_NAME
from training.language_card import language_card
from training.language_recipe import LanguageRecipe
from training.registered_pair import (
    Recorded,
    Registration,
    check_pair,
    read_pair,
    register_pair,
)


def register_language_model(
    registry: Registry,
    *,
    name: str,
    experiment: str,
    merged: Path,
    quantized: Path,
    snapshot: Path,
    split: Path,
    evaluation: Path,
    gate: Path,
    recipe: LanguageRecipe,
    out: Path,
) -> Registration:
    """Register both versions and their prompts, and set the aliases that the gate allows.

    Run again with the same artifacts it finds the same run, versions and prompts.

    Args:
        registry: where to.
        name: the registered model.
        experiment: MLflow's experiment for the run that stores files and figures.
        merged: the parent, in float.
        quantized: its child.
        snapshot: the labels (kind snapshot or validated).
        split: their split.
        evaluation: of kind language_evaluation.
        gate: the verdict.
        recipe: what the model was trained by.
        out: folder of the artifact.

    Raises:
        ArtifactError: an artifact is missing or altered.
        GateError: the gate holds no verdict.
        RegistryError: the artifacts do not belong together, or MLflow refused or went away.
    """
    pair = read_pair(
        parent=read_manifest(merged, LANGUAGE_MODEL_KIND),
        candidate=read_manifest(quantized, LANGUAGE_MODEL_KIND),
        snapshot=snapshot,
        split=split,
        evaluation=read_manifest(evaluation, LANGUAGE_EVALUATION_KIND),
        metrics=evaluation / METRICS_NAME,
        gate=gate,
    )
    bases = (pair.candidate.facts.get("base_digest"), pair.parent.facts.get("base_digest"))
    check_pair(pair, candidate_base_digest=bases)
    recorded = Recorded(
        run_name=recipe.name,
        params=flat(recipe.model_dump()),
        artifacts={"evaluation": evaluation, "gate": gate},
        signature=CHAT_SIGNATURE,
        card=lambda model: language_card(name, pair, model, recipe),
        tags={
            "recipe": recipe.name,
            "recipe_digest": recipe.digest(),
            **register_prompts(registry),
        },
    )
    return register_pair(
        registry,
        pair,
        recorded,
        name=name,
        experiment=experiment,
        parent=merged,
        candidate=quantized,
        out=out,
    )
