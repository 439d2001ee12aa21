"""Runs and versions of one registry, as the tests of its rooms log and look at them."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from data.manifest import Manifest
from serving.experiments.catalogue import Catalogue
from serving.experiments.specification import specification_of
from serving.registry.aliases import move_alias
from serving.registry.connection import Registry, ResolvedVersion, log_run
from serving.registry.evidence import Alias, Evidence
from serving.registry.journal import Kind, Plan
from serving.registry.versions import register_version

NAME = "sentiment"
NewRun = Callable[..., str]
ModelMaker = Callable[..., Manifest]
EXPERIMENT: dict[str, Any] = {
    "name": "lighter",
    "hypothesis": "가벼운 모델도 똑같이 답한다 🙂",
    "owner": "review-analysis",
    "unit": "user",
    "arms": [
        {"name": "now", "model": "models:/sentiment@champion"},
        {"name": "lighter", "model": "models:/sentiment@challenger"},
    ],
    "metrics": {"primary": {"name": "sentiment_accuracy", "direction": "increase"}},
    "phases": [
        {"kind": "shadow", "mirrored": 0.2},
        {"kind": "canary", "allocation": {"now": 0.95, "lighter": 0.05}},
        {"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}},
    ],
}


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


@pytest.fixture
def compared(
    registry: Registry, make_model: ModelMaker, register: Callable[..., Any], tmp_path: Path
) -> Registry:
    """Version 1 of ``sentiment`` is champion, version 2 its challenger."""
    moves: tuple[tuple[Alias, Any, str], ...] = (
        ("champion", "first_model", "1"),
        ("challenger", "gate", "2"),
    )
    for alias, kind, version in moves:
        make_model(tmp_path / f"model-{version}", weight=float(version))
        register(tmp_path / f"model-{version}", key=f"v{version}", evidence_id=f"e{version}")
        evidence = Evidence(
            kind=kind,
            decision="pass",
            evidence_id=f"e{version}",
            artifact_digest="gate",
            reason="통과",
        )
        move_alias(registry, NAME, alias, version, evidence=evidence, expected_version=None)
    return registry


@pytest.fixture
def give_alias(registry: Registry) -> Callable[..., None]:
    """Gives an alias of ``sentiment`` to a version, on the evidence of its gate."""

    def give(alias: Alias, version: str, expected: str | None = None) -> None:
        evidence = Evidence(
            kind="gate" if alias == "challenger" else "first_model",
            decision="pass",
            evidence_id=f"e{version}",
            artifact_digest="gate",
            reason="passed",
        )
        move_alias(registry, NAME, alias, version, evidence=evidence, expected_version=expected)

    return give


@pytest.fixture
def versions(
    registry: Registry,
    register: Callable[..., ResolvedVersion],
    make_model: Callable[..., object],
    give_alias: Callable[..., None],
    tmp_path: Path,
) -> Registry:
    """Versions 1, the champion, 2, the challenger, and 3 of ``sentiment``."""
    for number in (1, 2, 3):
        make_model(tmp_path / f"model-{number}", weight=float(number))
        register(tmp_path / f"model-{number}", f"version-{number}", evidence_id=f"e{number}")
    give_alias("champion", "1")
    give_alias("challenger", "2")
    return registry


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """A plan about version 2 against champion 1; what is named is changed."""

    def make(kind: Kind, **changes: Any) -> Plan:
        version = "1" if kind == "restore" else "2"
        evidence = Evidence(
            kind="restore" if kind == "restore" else "verdict",
            decision=kind,
            evidence_id=f"e{version}",
            artifact_digest=f"why-{kind}",
            reason="구간이 그렇다고 한다",
            deployment_id="d1",
            champion_version="1",
            challenger_version="2",
        )
        said = {
            "kind": kind,
            "name": NAME,
            "version": version,
            "expected": "2" if kind == "restore" else "1",
            "evidence": evidence,
            "deployment_id": "d1",
            "arm": "challenger" if kind == "promote" else "champion",
            "by": "verdict",
        }
        return Plan.model_validate(said | changes)

    return make


@pytest.fixture
def store_address(tmp_path: Path) -> str:
    """Of the store that the catalogue is in."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def catalogue(store_address: str) -> Iterator[Catalogue]:
    """An empty one."""
    opened = Catalogue(store_address)
    yield opened
    opened.close()


@pytest.fixture
def experiment_values() -> Callable[..., dict[str, Any]]:
    """The experiment ``lighter`` as YAML or JSON say it; whole sections may be given anew."""

    def values(changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return copy.deepcopy(EXPERIMENT) | dict(changes or {})

    return values


@pytest.fixture
def agree(
    catalogue: Catalogue, experiment_values: Callable[..., dict[str, Any]]
) -> Callable[..., str]:
    """Keeps an experiment, and says its name."""

    def one(changes: Mapping[str, Any] | None = None) -> str:
        specification = specification_of(experiment_values(changes), where="test")
        return catalogue.put(specification).lifecycle.specification.name

    return one
