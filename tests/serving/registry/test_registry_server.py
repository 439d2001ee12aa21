"""Against a real MLflow server in its own process, which is killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from data.errors import RegistryError
from data.manifest import read_manifest
from serving.model_folder import MODEL_KIND
from serving.registry.connection import connect, log_run
from serving.registry.versions import download, register_version, resolve

pytestmark = pytest.mark.services
NAME = "sentiment"


class Server:
    """`mlflow server` on a free port; its database and files outlive it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                    *("--host", "127.0.0.1", "--port", str(self.port)),
                    *("--backend-store-uri", f"sqlite:///{self.folder}/server.db"),
                    *("--artifacts-destination", str(self.folder / "artifacts")),
                ],
                cwd=self.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for _ in range(1200):
            assert self.process.poll() is None, log.read_text()
            try:
                httpx.get(f"{self.uri}/health", timeout=2).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(log.read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory, migrated_database):
    folder = tmp_path_factory.mktemp("server")
    (folder / "server.db").write_bytes(migrated_database.read_bytes())
    running = Server(folder)
    running.start()
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def few_retries(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")


def register(server: Server, folder: Path, name: str):
    registry = connect(server.uri, state=folder.parent / "state")
    run_id = log_run(
        registry,
        experiment="training",
        run_name="run",
        params={"epochs": 3},
        metrics={"loss": [(1, 0.5), (2, 0.25)]},
        tags={},
        artifacts={},
        idempotency_key=f"run-{name}",
    )
    version = register_version(
        registry,
        name=name,
        folder=folder,
        tags={"evidence_id": "e1", "gate_verdict": "pass"},
        description="카드",
        run_id=run_id,
        idempotency_key=f"version-{name}",
    )
    return registry, version


def test_register_resolve_and_download_over_http(server, make_model, tmp_path):
    manifest = make_model(tmp_path / "model")
    registry, version = register(server, tmp_path / "model", "whole")
    registry.client.set_registered_model_alias("whole", "champion", version.version)
    assert resolve(registry, "whole", "champion") == version
    folder = download(registry, version, tmp_path / "cache")
    assert read_manifest(folder, MODEL_KIND).digest == manifest.digest
    page = httpx.get(
        f"{server.uri}/model-versions/get-artifact",
        params={"path": "MLmodel", "name": "whole", "version": version.version},
    )
    assert "signature" in page.text


@pytest.mark.parametrize("killed_after", ["log_artifact", "create_model_version"])
def test_a_server_killed_halfway_leaves_nothing_half_registered(
    server, make_model, tmp_path, monkeypatch, killed_after
):
    make_model(tmp_path / "model")
    name = f"killed-after-{killed_after}"
    client = type(connect(server.uri, state=tmp_path / "state").client)
    real = getattr(client, killed_after)

    def and_kill(*arguments, **names):
        answer = real(*arguments, **names)
        server.kill()
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(client, killed_after, and_kill)
        with pytest.raises(RegistryError, match="run the step again"):
            register(server, tmp_path / "model", name)
    with pytest.raises(RegistryError, match="does not answer"):
        register(server, tmp_path / "model", name)
    server.start()
    registry, version = register(server, tmp_path / "model", name)
    versions = registry.client.search_model_versions(f"name = '{name}'")
    assert [str(found.version) for found in versions] == [version.version] == ["1"]
    assert register(server, tmp_path / "model", name)[1].version == "1"
    experiment = registry.client.get_experiment_by_name("training")
    runs = registry.client.search_runs(
        [experiment.experiment_id], f"tags.`matjip.idempotency_key` = 'run-{name}'"
    )
    assert len(runs) == 1
    read_manifest(download(registry, version, tmp_path / "cache"), MODEL_KIND)
