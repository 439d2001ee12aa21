"""Register a classifier that was trained: the fp32 export and its quantised child."""

from pathlib import Path

from data.manifest import Manifest, read_manifest
from data.settings import flat
from serving.model_folder import MODEL_KIND
from serving.registry.connection import Registry
from serving.registry.signature import CLASSIFIER_SIGNATURE
from training.model_card import model_card
from training.recipe import Recipe
from training.registered_pair import (
    Pair,
    Recorded,
    Registration,
    check_pair,
    read_pair,
    register_pair,
)


def register_model(
    registry: Registry,
    *,
    name: str,
    experiment: str,
    parent: Path,
    candidate: Path,
    snapshot: Path,
    split: Path,
    evaluation: Path,
    gate: Path,
    recipe: Recipe,
    out: Path,
) -> Registration:
    """Register both versions and set the aliases that the gate allows; write ``registration.json``.

    Run again with the same artifacts it finds the same run and versions, and changes nothing.

    Args:
        registry: where to.
        name: the registered model.
        experiment: MLflow's experiment for the run that stores files and figures.
        parent: the fp32 export.
        candidate: its quantised child.
        snapshot: the labels (kind snapshot or validated).
        split: their split.
        evaluation: figures, with ``metrics.json``.
        gate: the verdict.
        recipe: what the model was trained by.
        out: folder of the artifact.

    Raises:
        ArtifactError: an artifact is missing or altered.
        GateError: the gate holds no verdict.
        RegistryError: the artifacts do not belong together, or MLflow refused or went away.
    """
    pair = read_pair(
        parent=read_manifest(parent, MODEL_KIND),
        candidate=read_manifest(candidate, MODEL_KIND),
        snapshot=snapshot,
        split=split,
        evaluation=read_manifest(evaluation, "evaluation"),
        metrics=evaluation / "metrics.json",
        gate=gate,
    )
    facts = pair.candidate.facts
    made_by = facts.get("split_digest", pair.split.digest), pair.split.digest
    trained_by = facts.get("recipe_digest", recipe.digest), recipe.digest
    check_pair(pair, candidate_split_digest=made_by, candidate_recipe_digest=trained_by)
    recorded = Recorded(
        run_name=recipe.name,
        params=flat(recipe.model_dump()),
        artifacts={"evaluation": evaluation, "gate": gate},
        signature=CLASSIFIER_SIGNATURE,
        card=lambda model: _card(name, pair, model),
    )
    return register_pair(
        registry,
        pair,
        recorded,
        name=name,
        experiment=experiment,
        parent=parent,
        candidate=candidate,
        out=out,
    )


def _card(name: str, pair: Pair, model: Manifest) -> str:
    return model_card(
        name,
        model=model,
        parent=pair.parent,
        snapshot=pair.snapshot,
        verdict=pair.verdict,
        metrics=pair.metrics,
        measured_as=pair.measured_as(model),
    )
