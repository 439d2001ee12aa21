import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from sqlalchemy import Engine, event

from data.contract import CONTRACT_VERSION
from data.manifest import Manifest, write_manifest
from serving.model_folder import MODEL_KIND, ModelFormat, ModelSpec, write_spec
from serving.registry.connection import Registry, connect

ModelMaker = Callable[..., Manifest]


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: migrating one takes seconds, so tests get a copy."""
    folder = tmp_path_factory.mktemp("mlflow")
    event.listen(Engine, "connect", _do_not_wait_for_the_disk)
    connect(f"sqlite:///{folder}/mlflow.db")
    event.remove(Engine, "connect", _do_not_wait_for_the_disk)
    return folder / "mlflow.db"


@pytest.fixture
def registry(migrated_database: Path, tmp_path: Path) -> Iterator[Registry]:
    """A real, empty registry of its own for each test: SQLite, in this process."""
    folder = tmp_path / "registry"
    folder.mkdir()
    shutil.copy2(migrated_database, folder / "mlflow.db")
    event.listen(Engine, "connect", _do_not_wait_for_the_disk)
    yield connect(f"sqlite:///{folder}/mlflow.db")
    event.remove(Engine, "connect", _do_not_wait_for_the_disk)


@pytest.fixture
def make_model() -> ModelMaker:
    """Seals a model folder with a real, small ONNX graph; the weight tells two models apart."""

    def make(
        folder: Path,
        *,
        weight: float = 1.0,
        model_format: ModelFormat = "onnx-fp32",
        **facts: object,
    ) -> Manifest:
        folder.mkdir(parents=True)
        graph = helper.make_graph(
            [helper.make_node("Mul", ["x", "weight"], ["y"])],
            "scale",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
            [helper.make_tensor("weight", TensorProto.FLOAT, [1], [weight])],
        )
        onnx.save(helper.make_model(graph), str(folder / "model.onnx"))
        (folder / "tokenizer.json").write_text('{"version": "1.0"}', encoding="utf-8")
        write_spec(
            folder,
            ModelSpec(
                contract_version=CONTRACT_VERSION,
                format=model_format,
                architecture="electra",
                max_tokens=128,
                overlap_tokens=32,
            ),
        )
        return write_manifest(folder, MODEL_KIND, {"format": model_format, **facts})

    return make
