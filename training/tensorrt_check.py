"""Are an embedding model's graphs shaped as TensorRT takes them? Its builder says, without a GPU.

The builder is TensorRT-RTX's, on the CPU: that it takes a graph says that the graph is
TensorRT-shaped, not how fast it is, and not that a GPU has run it.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from data.errors import ExportError
from data.manifest import Manifest, read_manifest, start_artifact, write_json, write_manifest
from serving.embedding_folder import EMBEDDING_KIND, read_embedding_spec
from training.half import write_half
from training.rtx_gate import RtxReport, check_tensorrt_shape

CHECK_KIND: Final = "tensorrt_check"
QDQ: Final = "qdq.onnx"
GRAPHS: Final = ("graph_fp16.onnx", QDQ)


def check_tensorrt(
    model: Path, out: Path, *, max_batch: int = 32, demanded: Sequence[str] = ()
) -> Manifest:
    """Ask the builder about every graph that is meant for TensorRT, in every form that it may take.

    Args:
        model: an exported embedding folder.
        out: empty folder: tensorrt.json.
        max_batch: windows of the largest batch that the graph must take.
        demanded: formats ("int8", "qdq") without which it fails; "qdq" is TensorRT's.

    Returns:
        The manifest, whose facts say of each graph "accepted", "refused" or "absent", and why.

    Raises:
        ArtifactError: the folder is missing or altered.
        EngineError: the builder is not installed.
        ExportError: a demanded graph is refused or absent.
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
            reports = _asked(model / name, max_batch=max_batch, max_tokens=max_tokens)
        except ExportError as error:
            graphs[name] = {"status": "refused", "reason": str(error)}
        else:
            graphs[name] = {"status": "accepted", "report": reports[-1].model_dump()}
    for name in demanded:
        said = graphs.get(f"{name}.onnx")
        if said is not None and said["status"] != "accepted":
            raise ExportError(
                f"the recipe demands {name!r}, and TensorRT's builder finds it {said['status']}: "
                f"{said['reason']}; take it out of `demanded`, or leave more of the graph in float"
            )
    start_artifact(out)
    facts = {"model": sealed.digest, "graphs": graphs, "verdict": tensorrt_verdict(graphs)}
    write_json(out / "tensorrt.json", facts)
    return write_manifest(out, CHECK_KIND, facts)


def tensorrt_verdict(graphs: Mapping[str, Mapping[str, Any]]) -> str:
    """One word for a version's tag: "refused" where any graph is, "accepted" where one is taken.

    Args:
        graphs: what a check's manifest says of each.
    """
    statuses = {said["status"] for said in graphs.values()}
    return next((word for word in ("refused", "accepted") if word in statuses), "absent")


def _asked(graph: Path, *, max_batch: int, max_tokens: int) -> list[RtxReport]:
    """The builder about a graph, and about the fp16 form that an engine is built from; that last.

    Raises:
        ExportError: it refuses one.
    """
    reports = [check_tensorrt_shape(graph, max_batch=max_batch, max_tokens=max_tokens)]
    if graph.name == QDQ:
        with tempfile.TemporaryDirectory() as folder:
            half = Path(folder) / f"{graph.stem}_fp16.onnx"
            write_half(graph, half)
            reports.append(check_tensorrt_shape(half, max_batch=max_batch, max_tokens=max_tokens))
    return reports
