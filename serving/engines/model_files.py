"""What a model's folder holds for engines: which file is which, and the names of the outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from data.errors import ArtifactError
from serving.embedding_folder import SPEC_NAME as EMBEDDING_SPEC
from serving.embedding_folder import read_embedding_spec
from serving.engines.plan_folder import PLAN_FOLDER
from serving.model_folder import SPEC_NAME as CLASSIFIER_SPEC
from serving.model_folder import ModelFormat, read_spec

if TYPE_CHECKING:
    from serving.text_encoder import TextEncoder

Role = Literal[
    "torch", "onnx", "onnx-int8", "graph", "graph-fp16", "qdq", "tensorrt-fp16", "tensorrt-int8"
]
"""Weights; ONNX Runtime's graph in fp32 and INT8; the dynamo exporter's, in fp32 and fp16; the same
with Q/DQ; engines built for a GPU at hand (serving/engines/plan_folder.py)."""

_PLANS: Final[Mapping[Role, str]] = {
    "tensorrt-fp16": f"{PLAN_FOLDER}/fp16.plan",
    "tensorrt-int8": f"{PLAN_FOLDER}/int8.plan",
}

_EMBEDDING: Final[Mapping[Role, str]] = {
    "torch": "source/model.safetensors",
    "onnx": "model.onnx",
    "onnx-int8": "int8.onnx",
    "graph": "graph.onnx",
    "graph-fp16": "graph_fp16.onnx",
    "qdq": "qdq.onnx",
    **_PLANS,
}
_CLASSIFIER: Final[Mapping[ModelFormat, Mapping[Role, str]]] = {
    "torch-fp32": {"torch": "model.safetensors"},
    "onnx-fp32": {"onnx": "model.onnx", "graph": "tensorrt.onnx", "qdq": "qdq.onnx", **_PLANS},
    "onnx-int8": {"onnx-int8": "model.onnx", "qdq": "qdq.onnx", **_PLANS},
}


@dataclass(frozen=True)
class ModelFiles:
    """One folder, as engines see it.

    Attributes:
        folder: of the model.
        outputs: names of what the model answers with.
        names: role → file in the folder, whether it is there or not.
        load_torch: the model in torch, in eval mode.
    """

    folder: Path
    outputs: tuple[str, ...]
    names: Mapping[Role, str]
    load_torch: "Callable[[], TextEncoder]"

    def path(self, role: Role) -> Path | None:
        """The file in this role, if a folder of this format has one and it is there."""
        path = self.folder / self.names.get(role, "")
        return path if path.is_file() else None


def read_model_files(folder: Path) -> ModelFiles:
    """What a classifier's or embedding model's folder holds; hashes are not checked here.

    Raises:
        ArtifactError: it is neither, or its spec is not one.
    """
    if (folder / EMBEDDING_SPEC).is_file():
        return _embedding_files(folder)
    if (folder / CLASSIFIER_SPEC).is_file():
        return _classifier_files(folder)
    raise ArtifactError(
        f"{str(folder)!r} has neither {CLASSIFIER_SPEC} nor {EMBEDDING_SPEC}; pass the folder of a "
        "classifier or of an embedding model"
    )


def _classifier_files(folder: Path) -> ModelFiles:
    from serving.logits import LOGITS

    def load() -> "TextEncoder":
        from serving.encoder import load_encoder

        return load_encoder(folder)

    return ModelFiles(folder, LOGITS, _CLASSIFIER[read_spec(folder).format], load)


def _embedding_files(folder: Path) -> ModelFiles:
    spec = read_embedding_spec(folder)

    def load() -> "TextEncoder":
        from serving.sentence_encoder import load_sentence_encoder

        return load_sentence_encoder(
            folder / "source", pooling=spec.pooling, normalize=spec.normalize
        )

    return ModelFiles(folder, ("embedding",), _EMBEDDING, load)
