"""An embedding model into the registry, and from there to what the gateway serves.

A version is registered whatever its evaluation said, so that a refused model can be looked at; only
one that passed is deployed. There is no challenger: vectors of two models cannot stand in one
index, so a new version takes the old one's place as a whole, and `version` brings an old one back.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from data.contract import CONTRACT_VERSION
from data.errors import GateError, RegistryError
from data.manifest import (
    Manifest,
    canonical_digest,
    read_manifest,
    start_artifact,
    write_json,
    write_manifest,
)
from data.settings import flat
from serving.embedding_deployment import (
    EMBEDDING_DEPLOYMENT_NAME,
    EmbeddingDeployment,
    write_embedding_deployment,
)
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import BASELINE, plain_engine
from serving.registry.arms import DEPLOYMENT_KIND, place_model
from serving.registry.connection import Metric, connect, log_run
from serving.registry.signature import EMBEDDING_SIGNATURE
from serving.registry.versions import get_version, register_version
from training.embedding_recipe import EmbeddingRecipe
from training.evaluation.retrieval import EVALUATION_KIND
from training.registered_pair import REGISTRATION_KIND
from training.tensorrt_check import CHECK_KIND, tensorrt_verdict

EXPERIMENT: Final = "matjip"
FORMAT_OF: Final = {
    "onnxruntime-fp32": "onnx-fp32",
    "onnxruntime-int8": "onnx-int8",
    BASELINE: "torch-fp32",
}
"""Plain engine → the format of what it serves; a tuned engine may serve another of the folder."""
_VERDICTS: Final = ("pass", "fail")


def register_embedding(
    tracking_uri: str,
    model_name: str,
    *,
    model: Path,
    split: Path,
    evaluation: Path,
    tensorrt: Path,
    recipe: EmbeddingRecipe,
    out: Path,
) -> Manifest:
    """Register an embedding folder with its evidence; the same artifacts give the same version.

    Args:
        tracking_uri: MLflow's.
        model_name: the registered model.
        model: what was exported and quantised.
        split: what it was trained from.
        evaluation: of this model.
        tensorrt: the verdict of training/tensorrt_check.py about its graphs.
        recipe: what it was made by.
        out: folder of the artifact: registration.json.

    Raises:
        ArtifactError: an artifact is missing or altered.
        GateError: the evaluation holds no verdict.
        RegistryError: the artifacts do not belong together, or MLflow refused or went away.
    """
    sealed = read_manifest(model, EMBEDDING_KIND)
    measured = read_manifest(evaluation, EVALUATION_KIND)
    checked = read_manifest(tensorrt, CHECK_KIND)
    parent = read_manifest(split, "split")
    verdict = measured.facts.get("verdict")
    if verdict not in _VERDICTS:
        raise GateError(
            f"{str(evaluation)!r} says verdict {verdict!r}, expected one of {_VERDICTS}; evaluate "
            "again: a model is not registered without its verdict"
        )
    _check_belongs(sealed, measured, checked, parent, recipe)
    served = FORMAT_OF[plain_engine(model)]
    evidence_id = canonical_digest([sealed.digest, measured.digest, checked.digest, parent.digest])
    registry = connect(tracking_uri)
    metrics = json.loads((evaluation / "metrics.json").read_bytes())["metrics"]
    run_id = log_run(
        registry,
        experiment=EXPERIMENT,
        run_name=f"{recipe.name}-{evidence_id[:8]}",
        params=flat(recipe.model_dump()),
        metrics=_logged(metrics, sealed),
        tags={"evidence_id": evidence_id, "gate_verdict": verdict},
        artifacts={"evaluation": evaluation, "tensorrt": tensorrt},
        idempotency_key=f"registration:{evidence_id}",
    )
    version = register_version(
        registry,
        name=model_name,
        folder=model,
        tags={
            "snapshot_id": str(parent.facts.get("snapshot_id")),
            "gate_verdict": verdict,
            "evidence_id": evidence_id,
            "evaluation_digest": measured.digest,
            "format": served,
            "tensorrt_verdict": tensorrt_verdict(checked.facts["graphs"]),
            "quantized_format": str(sealed.facts["format"]),
            "bytes": str(sum(entry.bytes for entry in sealed.files.values())),
            "contract_version": CONTRACT_VERSION,
            "recipe": recipe.name,
            "recipe_digest": recipe.digest,
        },
        description=(evaluation / "report.md").read_text(encoding="utf-8"),
        run_id=run_id,
        idempotency_key=f"version:{evidence_id}",
        signature=EMBEDDING_SIGNATURE,
    )
    start_artifact(out)
    said = {
        "name": model_name,
        "version": version.version,
        "run_id": run_id,
        "evidence_id": evidence_id,
        "verdict": verdict,
        "reason": measured.facts["reason"],
        "manifest_digest": sealed.digest,
        "format": served,
    }
    write_json(out / "registration.json", said)
    return write_manifest(out, REGISTRATION_KIND, said)


def deploy_embedding(
    tracking_uri: str, *, registration: Path, version: str, models: Path, out: Path
) -> Manifest:
    """Fetch a registered version and write the deployment that the gateway serves.

    A model that did not pass is not deployed: the folder then holds a manifest that says so, with
    ``status: skipped``, and no embedding_deployment.json.

    Args:
        tracking_uri: MLflow's.
        registration: what the register step wrote.
        version: another version of the same model, to bring it back; empty for the registered one.
        models: folder that keeps fetched models from one run to the next.
        out: folder of the artifact: embedding_deployment.json, models/.

    Raises:
        RegistryError: there is no such version, it is not what was registered, or MLflow is away.
    """
    said = read_manifest(registration, REGISTRATION_KIND).facts
    registry = connect(tracking_uri)
    found = get_version(registry, said["name"], version or said["version"])
    start_artifact(out)
    if found.tags.get("gate_verdict") != "pass":
        reason = f"version {found.version} of {found.name!r} did not pass: {said['reason']}"
        return write_manifest(out, DEPLOYMENT_KIND, {"status": "skipped", "reason": reason})
    inside = place_model(registry, found, work=models, out=out)
    deployment = EmbeddingDeployment(
        model_name=found.name,
        version=found.version,
        folder=inside.relative_to(out),
        manifest_digest=found.tags["manifest_digest"],
        evidence_id=found.tags["evidence_id"],
        created_at=datetime.now(UTC),
    )
    write_embedding_deployment(out / EMBEDDING_DEPLOYMENT_NAME, deployment)
    return write_manifest(
        out,
        DEPLOYMENT_KIND,
        {
            "deployment_id": deployment.deployment_id,
            "version": found.version,
            "status": "ok",
            "reason": "",
        },
    )


def _check_belongs(
    model: Manifest,
    evaluation: Manifest,
    tensorrt: Manifest,
    split: Manifest,
    recipe: EmbeddingRecipe,
) -> None:
    belongs = {
        "the evaluated model": (evaluation.facts.get("model"), model.digest),
        "the model that TensorRT was asked about": (tensorrt.facts.get("model"), model.digest),
        "the evaluation's split": (evaluation.facts.get("split"), split.digest),
        "the model's split_digest": (model.facts.get("split_digest"), split.digest),
        "the model's recipe_digest": (model.facts.get("recipe_digest"), recipe.digest),
    }
    if wrong := [f"{what} is {a!r}, given was {b!r}" for what, (a, b) in belongs.items() if a != b]:
        raise RegistryError(
            f"these artifacts do not belong together: {'; '.join(wrong)}; pass those of one run"
        )


def _logged(metrics: dict[str, Any], model: Manifest) -> dict[str, Metric]:
    logged: dict[str, Metric] = {
        f"{who}.{name}": float(figure["value"])
        for who, figures in metrics.items()
        for name, figure in figures.items()
    }
    for graph, facts in model.facts["formats"].items():
        for name, value in facts["parity"].items():
            logged[f"{graph}.{name}"] = float(value)
    if curve := model.facts.get("curve"):
        logged["loss"] = [(int(step), float(value)) for step, value in curve]
    return logged
