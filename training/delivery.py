"""The steps between a trained model and the traffic, from folders and addresses.

evaluate → gate → register → deploy … compare → promote. Each function is what one component calls:
it connects to the registry, reads the artifacts it is given, and leaves a sealed folder.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from data.manifest import Manifest, read_manifest, write_manifest
from serving.analyzer import load_analyzer
from serving.deployment import Deployment, read_deployment
from serving.experiments.turning import is_at_work, turner
from serving.registry.arms import DEPLOYMENT_KIND
from serving.registry.connection import connect
from serving.registry.promotion import Verdict
from serving.registry.promotion import deploy_challenger as deploy
from serving.registry.promotion import promote_model as promote
from serving.registry.transition import Tools
from serving.registry.versions import download, resolve
from training.comparison import COMPARISON_KIND
from training.evaluation.evaluation import EVALUATION_KIND, evaluate_models
from training.gate import GatePolicy, gate
from training.recipe import Recipe
from training.registration import register_model as register

CANDIDATE: Final = "candidate"
PARENT: Final = "parent"
CHAMPION: Final = "champion"
EXPERIMENT: Final = "matjip"


class EvaluationSettings(BaseModel):
    """How an evaluation is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    resamples: int = Field(default=2000, ge=100)
    threads: int = Field(default=1, ge=1, description="Of each engine; speed is read at 1.")


def evaluate_candidate(
    split: Path,
    *,
    exported: Path,
    quantized: Path,
    tracking_uri: str,
    model_name: str,
    settings: EvaluationSettings,
    out: Path,
) -> Manifest:
    """Measure the INT8 candidate, its fp32 parent and the champion, if there is one.

    Raises:
        RegistryError: the champion cannot be asked for or fetched.
        ArtifactError: an input is missing or altered.
    """
    registry = connect(tracking_uri)
    champion = resolve(registry, model_name, "champion")
    models = {CANDIDATE: quantized, PARENT: exported}
    with tempfile.TemporaryDirectory() as fetched:
        if champion is not None:
            models[CHAMPION] = download(registry, champion, Path(fetched))
        return evaluate_models(
            split,
            models,
            out,
            seed=settings.seed,
            resamples=settings.resamples,
            threads=settings.threads,
            reference=PARENT,
        )


def evaluate_held_out(
    split: Path,
    *,
    reviews: Path,
    candidate: Path,
    parent: Path,
    settings: EvaluationSettings,
    out: Path,
) -> Manifest:
    """Measure a candidate and its parent on a validated folder that no part of them came from.

    Raises:
        LeakageError: a review of ``reviews`` stands in the split's training part by its id.
        ArtifactError: an input is missing or altered.
    """
    return evaluate_models(
        split,
        {CANDIDATE: candidate, PARENT: parent},
        out,
        held_out=reviews,
        seed=settings.seed,
        resamples=settings.resamples,
        threads=settings.threads,
        reference=PARENT,
    )


def gate_candidate(evaluation: Path, out: Path, *, policy: GatePolicy, recipe: Recipe) -> Manifest:
    """Judge what ``evaluate_candidate`` measured.

    Raises:
        GateError: a model, metric or slice is missing.
    """
    measured = read_manifest(evaluation, EVALUATION_KIND).facts["models"]
    return gate(
        evaluation,
        out,
        policy=policy,
        candidate=CANDIDATE,
        parent=PARENT,
        champion=CHAMPION if CHAMPION in measured else None,
        pretrained=recipe.encoder.pretrained is not None,
    )


def register_candidate(
    tracking_uri: str,
    model_name: str,
    *,
    validated: Path,
    split: Path,
    exported: Path,
    quantized: Path,
    evaluation: Path,
    gate: Path,
    recipe: Recipe,
    out: Path,
) -> Manifest:
    """Register parent and candidate with their evidence; aliases follow the gate.

    Raises:
        RegistryError: MLflow refused or went away, or the artifacts do not belong together.
    """
    register(
        connect(tracking_uri),
        name=model_name,
        experiment=EXPERIMENT,
        parent=exported,
        candidate=quantized,
        snapshot=validated,
        split=split,
        evaluation=evaluation,
        gate=gate,
        recipe=recipe,
        out=out,
    )
    return read_manifest(out)


def deploy_candidate(
    tracking_uri: str, model_name: str, *, challenger_share: float, models: Path, out: Path
) -> Manifest:
    """Fetch champion and challenger and write the deployment that the gateway serves.

    While no model has passed its gate there is nothing to serve: the folder then holds a manifest
    that says so, with ``status: skipped``, and no deployment.json.

    Raises:
        RegistryError: a model is not what was registered, or MLflow is away.
    """
    if resolve(connect(tracking_uri), model_name, "champion") is None:
        out.mkdir(parents=True, exist_ok=True)
        reason = f"{model_name!r} has no champion: no model has passed its gate yet"
        return write_manifest(out, DEPLOYMENT_KIND, {"status": "skipped", "reason": reason})
    deploy(connect(tracking_uri), name=model_name, share=challenger_share, work=models, out=out)
    return read_manifest(out)


def promote_candidate(
    tracking_uri: str, *, comparison: Path, deployment: Path, out: Path, store_url: str = ""
) -> Manifest:
    """Carry a comparison's verdict out: the traffic that gateways answer, and the alias.

    Args:
        tracking_uri: of the registry.
        comparison: folder of kind "comparison".
        deployment: folder of the deployment that was compared.
        out: folder for the promotion.
        store_url: the store that the gateways of the deployment ask who answers; without it, or
            where none has ever served the deployment, the alias alone moves.

    Raises:
        ExperimentError: the verdict is about another deployment, or its experiment has gone on.
        RegistryError: an alias was moved meanwhile, or MLflow is away.
    """
    registry = connect(tracking_uri)
    manifest = read_manifest(comparison, COMPARISON_KIND)
    decided = json.loads((comparison / "verdict.json").read_bytes())
    deployed = read_deployment(deployment / "deployment.json")
    figures = ("srm_p", "difference", "low", "high")
    serves = bool(store_url) and is_at_work(store_url, deployed.deployment_id)
    for arm in _arms_of(decided, deployed):
        promote(
            registry,
            verdict=Verdict(
                decision=decided["decision"],
                reason=decided["reason"],
                deployment_id=decided["deployment_id"],
                artifact_digest=manifest.digest,
                arm=arm,
            ),
            deployment=deployed,
            experiment=EXPERIMENT,
            metrics={name: decided[name] for name in figures if decided[name] is not None},
            artifacts={"comparison": comparison},
            out=out,
            tools=Tools(
                models=registry.state / "models",
                turn=turner(store_url) if serves else None,
                warm_up=answer_once,
            ),
        )
    return read_manifest(out)


def _arms_of(decided: Mapping[str, Any], deployed: Deployment) -> list[str | None]:
    """The arms that a verdict is about, one after the other: all of them where none is better."""
    others = [arm.name for arm in deployed.arms[1:]]
    if decided["decision"] == "roll_back" and decided.get("arm") is None and len(others) > 1:
        return list(others)
    return [decided.get("arm")]


def answer_once(folder: Path) -> None:
    """Load a classifier as the gateway does, and have it answer.

    Raises:
        ArtifactError: a file is missing or altered.
        EngineError: its engine cannot load it, or does not answer.
    """
    load_analyzer(folder).analyze(["맛있어요"])
