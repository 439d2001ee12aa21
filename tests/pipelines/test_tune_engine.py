"""What was deployed by which run, and whose engines are chosen; no engine is measured."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.errors import EngineError, SettingsError
from pipelines import tune_engine
from pipelines.deployments import EMBEDDING, LANGUAGE, gateway_options, latest_deployments
from pipelines.local import Home, RunRecord, StepRecord, save_run
from pipelines.tune_engine import tune_engines
from serving.embedding_deployment import (
    EMBEDDING_DEPLOYMENT_NAME,
    EmbeddingDeployment,
    write_embedding_deployment,
)
from serving.registry.language_deploy import DEPLOYMENT_NAME


def _deployed(home, graph, stamp, step, name, *, status="succeeded"):
    """A run that ended with a deployment; returns its file."""
    folder = home.folder(f"kfp/{graph}-{stamp}")
    (folder / name).touch()
    outputs = {"deployment": {"uri": str(folder)}} if status == "succeeded" else {}
    record = StepRecord(name=step, status=status, seconds=1.0, cached=False, outputs=outputs)
    save_run(
        home,
        RunRecord(
            run_id=f"{graph}-{stamp}", graph=graph, status=status, arguments={}, steps=[record]
        ),
    )
    return folder / name


def _embedding(home, stamp, **how):
    return _deployed(
        home, "train-embedding", stamp, "deploy-embedding", EMBEDDING_DEPLOYMENT_NAME, **how
    )


@pytest.fixture
def home(tmp_path):
    return Home(root=tmp_path)


def test_the_last_deployment_of_each_kind_is_joined(home):
    classifier = _deployed(
        home, "train-and-deploy", "20260101-000000-000", "deploy-challenger", "deployment.json"
    )
    _embedding(home, "20260102-000000-000")
    embedding = _embedding(home, "20260103-000000-000")
    _embedding(home, "20260104-000000-000", status="failed")
    assert gateway_options(latest_deployments(home)) == [
        "--deployment",
        str(classifier),
        "--embedding-deployment",
        str(embedding),
    ]
    newer = _deployed(
        home, "train-encoder", "20260105-000000-000", "deploy-challenger", "deployment.json"
    )
    assert latest_deployments(home)["--deployment"] == newer


def test_where_nothing_was_deployed_both_ways_are_named(home):
    with pytest.raises(SettingsError, match=r"make demo.*make embedding"):
        latest_deployments(home)


def test_an_embedding_model_alone_is_tuned(home, monkeypatch):
    path = _embedding(home, "20260101-000000-000")
    write_embedding_deployment(
        path,
        EmbeddingDeployment(
            model_name="matjip-embedding",
            version="1",
            folder="models/one",
            manifest_digest="a" * 64,
            evidence_id="e",
            created_at=datetime.now(UTC),
        ),
    )
    asked, codes = [], [0, 1]

    def run(command, *, check):
        asked.append(command[2:])
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(tune_engine.subprocess, "run", run)
    tune_engines(latest_deployments(home), ["--threads", "1"])
    folder = str(path.parent / "models" / "one")
    assert asked == [["serving.engines.tune", folder, "--threads", "1"]]
    with pytest.raises(EngineError, match="models/one"):
        tune_engines({EMBEDDING: path}, [])


def test_a_model_that_fails_leaves_the_others_to_be_tuned(monkeypatch):
    folders = [Path("models/champion"), Path("models/challenger"), Path("models/embedding")]
    asked, codes = [], [1, 0, 1]

    def run(command, *, check):
        asked.append(Path(command[3]))
        return subprocess.CompletedProcess(command, codes.pop(0))

    monkeypatch.setattr(tune_engine, "tunable_models", lambda deployments: folders)
    monkeypatch.setattr(tune_engine.subprocess, "run", run)
    with pytest.raises(EngineError, match=r"2 of 3 models.*champion', 'models/embedding'\]"):
        tune_engines({}, [])
    assert asked == folders


def test_a_language_model_alone_has_no_engines(home):
    path = _deployed(home, "train-language", "20260101-000000-000", "deploy-llm", DEPLOYMENT_NAME)
    with pytest.raises(SettingsError, match=r"--language-deployment.*MODEL=folder"):
        tune_engines({LANGUAGE: path}, [])
