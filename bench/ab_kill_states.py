"""What kill drills begin from, a registry and a store with two models, and what must hold in them.

A folder in, a state made in it, copied from it, or judged.
"""

import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from data.contract import CONTRACT_VERSION
from data.errors import MatjipError
from data.manifest import write_manifest
from serving.deployment import Arm, Deployment
from serving.experiments.routes import Routes
from serving.model_folder import MODEL_KIND, ModelSpec, write_spec
from serving.registry.aliases import move_alias
from serving.registry.connection import Registry, connect, log_run, version_of_alias
from serving.registry.evidence import Alias, Evidence, champions, last_move
from serving.registry.journal import journals
from serving.registry.ledger import read_ledger
from serving.registry.versions import READY, STATUS_TAG, download, register_version

NAME: Final = "sentiment"
_KEPT: Final = ("mlflow.db", "store.db", "alias_ledger.jsonl", "promotions", "signing")


def make_model(folder: Path, weight: float) -> Path:
    """A sealed model folder with a real ONNX graph; the weight tells two apart."""
    import onnx
    from onnx import TensorProto, helper

    folder.mkdir(parents=True)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "weight"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("weight", TensorProto.FLOAT, [1], [weight])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, str(folder / "model.onnx"))
    spec = ModelSpec(
        contract_version=CONTRACT_VERSION,
        format="onnx-fp32",
        architecture="electra",
        max_tokens=128,
        overlap_tokens=32,
    )
    write_spec(folder, spec)
    write_manifest(folder, MODEL_KIND, {"format": "onnx-fp32"})
    return folder


def warm_up(folder: Path) -> None:
    """Load a model as an engine does, and have it answer once."""
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "model.onnx"))
    session.run(None, {"x": np.ones(2, dtype=np.float32)})


def registry_in(folder: Path) -> Registry:
    """The registry of a drill's folder."""
    return connect(f"sqlite:///{folder}/mlflow.db")


def store_in(folder: Path) -> str:
    """The address of a drill's store."""
    return f"sqlite:///{folder}/store.db"


def prepare(folder: Path) -> None:
    """State ``compared``: version 1 is champion, version 2 its challenger, both are at work."""
    registry = registry_in(folder)
    run_id = log_run(
        registry,
        experiment="drills",
        run_name="drills",
        params={},
        metrics={},
        tags={},
        artifacts={},
        idempotency_key="drills",
    )
    for number in (1, 2):
        register_version(
            registry,
            name=NAME,
            folder=make_model(folder / f"model-{number}", float(number)),
            tags={"evidence_id": f"e{number}", "gate_verdict": "pass"},
            description="",
            run_id=run_id,
            idempotency_key=f"version-{number}",
        )
    aliases: tuple[tuple[Alias, Any, str], ...] = (
        ("champion", "first_model", "1"),
        ("challenger", "gate", "2"),
    )
    for alias, kind, version in aliases:
        evidence = Evidence(
            kind=kind,
            decision="pass",
            evidence_id=f"e{version}",
            artifact_digest="gate",
            reason="통과",
        )
        move_alias(registry, NAME, alias, version, evidence=evidence, expected_version=None)
    routes, deployed = Routes(store_in(folder)), deployment_in(registry)
    content = deployed.model_dump(mode="json")
    routes.put("sentiment", deployed.deployment_id, deployed.experiment_id, content)
    routes.close()


def deployment_in(registry: Registry) -> Deployment:
    """Version 1 against version 2, half and half."""
    return Deployment(
        experiment_id="drills",
        salt="0123456789abcdef",
        arms=tuple(
            Arm(
                name=name,
                model_name=NAME,
                version=version,
                folder=Path("models") / version,
                manifest_digest=registry.client.get_model_version(NAME, version).tags[
                    "manifest_digest"
                ],
                evidence_id=f"e{version}",
                share=0.5,
            )
            for name, version in (("champion", "1"), ("challenger", "2"))
        ),
        created_at=datetime(2026, 11, 30, tzinfo=UTC),
    )


def look(folder: Path, *, is_done: bool) -> list[str]:
    """What is wrong with the state that is found: at any time, and more when all is done."""
    registry, wrong = registry_in(folder), []
    champion = version_of_alias(registry, NAME, "champion")
    if champion is None or champion.tags.get(STATUS_TAG) != READY:
        return [f"the champion is {champion!r}"]
    try:
        download(registry, champion, folder.parent / "fetched")
        entries = read_ledger(registry, NAME)
    except MatjipError as error:
        return [str(error)]
    if [entry.at for entry in entries] != sorted(entry.at for entry in entries):
        wrong.append("the ledger's times go back")
    if not is_done:
        return wrong
    for alias in ("champion", "challenger"):
        found, last = version_of_alias(registry, NAME, alias), last_move(entries, alias)
        named = None if found is None else found.version
        if last is None or last.phase != "moved" or last.to_version != named:
            wrong.append(f"{alias} names {named!r}, the ledger ends with {last!r}")
        moves = [entry for entry in entries if entry.alias == alias]
        meant = [(e.from_version, e.to_version) for e in moves if e.phase == "moving"]
        done = [(e.from_version, e.to_version) for e in moves if e.phase == "moved"]
        if meant != done:
            wrong.append(f"{alias}: meant were {meant!r}, done are {done!r}")
    if champions(entries)[-1] != champion.version:
        wrong.append(f"champion {champion.version!r}, by the ledger {champions(entries)!r}")
    wrong += [f"{j.path.name} is open" for j in journals(registry.state) if j.end is None]
    return wrong


def state_of(folder: Path) -> list[str | None]:
    """The champion's version, and the arm that answers everybody."""
    registry, routes = registry_in(folder), Routes(store_in(folder))
    champion = version_of_alias(registry, NAME, "champion")
    route = routes.now(deployment_in(registry).deployment_id)
    return [champion and champion.version, route and route.arm]


def copy_state(state: Path, folder: Path) -> None:
    """Copy a state's databases and files; models stay where the registry says they are."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _KEPT:
        if (state / name).is_dir():
            shutil.copytree(state / name, folder / name)
        elif (state / name).exists():
            shutil.copy2(state / name, folder / name)


def do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    """For SQLAlchemy's event of a new connection."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")
