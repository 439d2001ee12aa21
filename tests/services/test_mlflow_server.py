"""MLflow as a team deploys it: PostgreSQL behind it, artifacts through it.

A server that is killed: tests/serving/registry/test_registry_server.py, on SQLite.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from data.manifest import Manifest, read_manifest
from serving.model_folder import MODEL_KIND
from serving.registry.connection import connect, log_run
from serving.registry.versions import download, register_version, resolve

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def tracking_server(postgres_url: str, tmp_path: Path, free_address: str) -> Iterator[str]:
    """`mlflow server --serve-artifacts` on an empty PostgreSQL database, which it migrates."""
    log = tmp_path / "server.log"
    host, port = free_address.split(":")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", host, "--port", port),
                *("--backend-store-uri", postgres_url.replace("://", "+psycopg://")),
                *("--serve-artifacts", "--artifacts-destination", str(tmp_path / "artifacts")),
            ],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 180
        while not answers(f"http://{free_address}"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"mlflow server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)
        yield f"http://{free_address}"
    finally:
        process.terminate()
        process.wait(30)


def test_a_model_goes_through_the_server_and_back(
    tracking_server: str,
    postgres_url: str,
    make_model: Callable[..., Manifest],
    tmp_path: Path,
) -> None:
    manifest = make_model(tmp_path / "model")
    registry = connect(tracking_server, state=tmp_path / "state")
    arguments = {
        "name": "sentiment",
        "folder": tmp_path / "model",
        "tags": {"evidence_id": "e1", "gate_verdict": "pass"},
        "description": "# 모델 카드",
        "run_id": log_run(
            registry,
            experiment="training",
            run_name="첫 번째",
            params={"epochs": 3},
            metrics={"loss": [(step, 1 / step) for step in range(1, 200)]},
            tags={},
            artifacts={},
            idempotency_key="run-1",
        ),
        "idempotency_key": "version-1",
    }
    version = register_version(registry, **arguments)
    assert register_version(registry, **arguments) == version
    registry.client.set_registered_model_alias("sentiment", "champion", version.version)
    assert resolve(registry, "sentiment", "champion") == version
    folder = download(registry, version, tmp_path / "fetched")
    assert read_manifest(folder, MODEL_KIND).digest == manifest.digest
    assert len(registry.client.get_metric_history(version.run_id, "loss")) == 199
    # It is the server that keeps it: rows in its database, files below its folder.
    with psycopg.connect(postgres_url) as connection:
        [row] = connection.execute("SELECT name, description FROM model_versions").fetchall()
    assert row == ("sentiment", "# 모델 카드")
    assert len(list((tmp_path / "artifacts").rglob("model.onnx"))) == 1
