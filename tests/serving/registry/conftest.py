"""Runs and versions of one registry, as the tests of its rooms log and look at them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from serving.registry.connection import Registry, ResolvedVersion, log_run
from serving.registry.versions import register_version

NAME = "sentiment"
NewRun = Callable[..., str]


@pytest.fixture
def new_run(registry: Registry) -> NewRun:
    """Logs a run with a curve; what is named is changed."""

    def new(key: str = "run-1", **changes: Any) -> str:
        arguments = {
            "experiment": "training",
            "run_name": "첫 번째",
            "params": {"epochs": 3},
            "metrics": {"macro_f1": 0.8, "loss": [(1, 0.9), (2, 0.5), (3, 0.4)]},
            "tags": {"snapshot_id": "abc"},
            "artifacts": {},
            "idempotency_key": key,
        }
        return log_run(registry, **(arguments | changes))

    return new


@pytest.fixture
def register(registry: Registry, new_run: NewRun) -> Callable[..., ResolvedVersion]:
    """Registers a sealed model folder as a version of the model ``sentiment``."""

    def one(
        folder: Path, key: str = "version-1", run: str = "run-1", **tags: str
    ) -> ResolvedVersion:
        return register_version(
            registry,
            name=NAME,
            folder=folder,
            tags={"evidence_id": "e1", "gate_verdict": "pass", **tags},
            description="# 모델 카드",
            run_id=new_run(run),
            idempotency_key=key,
        )

    return one


@pytest.fixture
def all_versions(registry: Registry) -> Callable[[], list[Any]]:
    """The versions of the model ``sentiment`` as MLflow has them."""
    return lambda: list(registry.client.search_model_versions(f"name = '{NAME}'"))


@pytest.fixture
def artifact_folder(registry: Registry) -> Callable[[ResolvedVersion], Path]:
    """Where the store keeps a version's files."""

    def folder(version: ResolvedVersion) -> Path:
        [manifest] = registry.state.glob(
            f"artifacts/*/{version.run_id}/artifacts/models/*/manifest.json"
        )
        return manifest.parent

    return folder


@pytest.fixture
def interrupt() -> Callable[..., NoReturn]:
    """Stands where a process is killed."""

    def killed(*_arguments: object, **_names: object) -> NoReturn:
        raise KeyboardInterrupt

    return killed
