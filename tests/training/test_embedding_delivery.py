import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.errors import GateError, RegistryError
from data.manifest import read_manifest, write_json, write_manifest
from serving.embedding_deployment import read_embedding_deployment
from serving.engines.choice import load_embedder
from serving.registry.versions import get_version
from training.embedding_delivery import deploy_embedding, register_embedding
from training.evaluation.retrieval import EVALUATION_KIND
from training.tensorrt_check import CHECK_KIND


@pytest.fixture
def evidence(tmp_path, embedding_int8, language_split, embedding_recipe):
    """Writes what the steps before registration leave, and registers."""
    model, split = read_manifest(embedding_int8), read_manifest(language_split)

    def register(registry, verdict="pass", name="first", **wrong):
        folder = tmp_path / name
        for part in ("evaluation", "tensorrt"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        figure = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 10}
        write_json(
            folder / "evaluation/metrics.json",
            {"metrics": {"candidate": {"retyped_mrr": figure}}, "name": name},
        )
        (folder / "evaluation/report.md").write_text("# 모델", encoding="utf-8")
        said = {"verdict": verdict, "reason": "as measured", "split": split.digest}
        write_manifest(
            folder / "evaluation", EVALUATION_KIND, said | {"model": model.digest} | wrong
        )
        asked = {"graph_fp16.onnx": {"status": "accepted"}, "qdq.onnx": {"status": "refused"}}
        write_manifest(folder / "tensorrt", CHECK_KIND, {"model": model.digest, "graphs": asked})
        register_embedding(
            registry.uri,
            "matjip-embedding",
            model=embedding_int8,
            split=language_split,
            evaluation=folder / "evaluation",
            tensorrt=folder / "tensorrt",
            recipe=embedding_recipe,
            out=folder / "registration",
        )
        return folder / "registration"

    return register


def _deploy(registry, registration: Path, tmp_path: Path, version: str = "") -> Path:
    out = tmp_path / f"deployment-{version}"
    deploy_embedding(
        registry.uri,
        registration=registration,
        version=version,
        models=tmp_path / "models",
        out=out,
    )
    return out


def test_what_is_registered_is_deployed_and_serves(registry, evidence, embedding_int8, tmp_path):
    registration = evidence(registry)
    said = json.loads((registration / "registration.json").read_bytes())
    version = get_version(registry, "matjip-embedding", said["version"])
    assert version.tags["gate_verdict"] == "pass"
    # The plain engine serves fp32 until another is tuned, though the folder holds INT8.
    assert version.tags["format"] == said["format"] == "onnx-fp32"
    assert version.tags["tensorrt_verdict"] == "refused"
    assert version.tags["quantized_format"] == "onnx-int8"
    assert version.tags["manifest_digest"] == read_manifest(embedding_int8).digest
    shutil.rmtree(registration)
    assert evidence(registry) == registration
    assert json.loads((registration / "registration.json").read_bytes()) == said
    out = _deploy(registry, registration, tmp_path)
    deployment = read_embedding_deployment(out / "embedding_deployment.json")
    assert deployment.model_version == "matjip-embedding/1"
    assert read_manifest(deployment.folder).digest == deployment.manifest_digest
    texts = ["맛있어요", "별로예요"]
    served = load_embedder(deployment.folder).embed(texts)
    assert np.array_equal(served, load_embedder(embedding_int8).embed(texts))


def test_what_did_not_pass_is_registered_and_not_deployed(registry, evidence, tmp_path):
    passed = evidence(registry)
    refused = evidence(registry, verdict="fail", name="second")
    out = _deploy(registry, refused, tmp_path)
    facts = read_manifest(out).facts
    assert facts["status"] == "skipped"
    assert "version 2" in facts["reason"]
    assert not (out / "embedding_deployment.json").exists()
    back = _deploy(registry, refused, tmp_path, version="1")
    deployment = read_embedding_deployment(back / "embedding_deployment.json")
    assert deployment.version == json.loads((passed / "registration.json").read_bytes())["version"]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "ab"}, RegistryError, "the evaluated model"),
        ({"split": "ab"}, RegistryError, "the evaluation's split"),
        ({"verdict": "maybe"}, GateError, "'maybe'"),
    ],
)
def test_evidence_of_another_run_or_without_a_verdict_is_refused(
    registry, evidence, wrong, error, message
):
    with pytest.raises(error, match=message):
        evidence(registry, **wrong)


def test_a_version_that_is_not_there_is_refused(registry, evidence, tmp_path):
    with pytest.raises(RegistryError, match="'7'"):
        _deploy(registry, evidence(registry), tmp_path, version="7")
