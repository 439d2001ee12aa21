"""Are an embedding model's graphs shaped as TensorRT takes them? Its builder says, without a GPU.

The builder is TensorRT-RTX's, on the CPU: that it takes a graph says that the graph is
TensorRT-shaped, not how fast it is, and not that a GPU has run it.
"""

from pathlib import Path
from typing import Any, Final

from data.errors import ExportError
from data.manifest import Manifest, read_manifest, start_artifact, write_json, write_manifest
from serving.embedding_folder import EMBEDDING_KIND, read_embedding_spec
from training.rtx_gate import check_tensorrt_shape

CHECK_KIND: Final = "tensorrt_check"
GRAPHS: Final = ("graph_fp16.onnx", "qdq.onnx")


def check_tensorrt(model: Path, out: Path, *, max_batch: int = 32) -> Manifest:
    """Ask the builder about every graph that is meant for TensorRT.

    Args:
        model: an exported embedding folder.
        out: empty folder: tensorrt.json.
        max_batch: windows of the largest batch that the graph must take.

    Returns:
        The manifest, whose facts say of each graph "accepted", "refused" or "absent", and why.

    Raises:
        ArtifactError: the folder is missing or altered.
        EngineError: the builder is not installed.
    """
    sealed = read_manifest(model, EMBEDDING_KIND)
    max_tokens = read_embedding_spec(model).max_tokens
    graphs: dict[str, Any] = {}
    for name in GRAPHS:
        if not (model / name).is_file():
            why = sealed.facts.get("left_out", {}).get(name, "the folder does not hold it")
            graphs[name] = {"status": "absent", "reason": why}
            continue
        try:
            report = check_tensorrt_shape(model / name, max_batch=max_batch, max_tokens=max_tokens)
        except ExportError as error:
            graphs[name] = {"status": "refused", "reason": str(error)}
        else:
            graphs[name] = {"status": "accepted", "report": report.model_dump()}
    start_artifact(out)
    facts = {"model": sealed.digest, "graphs": graphs}
    write_json(out / "tensorrt.json", facts)
    return write_manifest(out, CHECK_KIND, facts)
