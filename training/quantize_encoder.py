"""ONNX fp32 to INT8, keeping as much of the graph in float as quality asks for.

The most thorough scheme is tried first; one that does not answer like its parent gives way to the
next. Weights are INT8 per channel, activations INT8 by the range of each batch (dynamic).
"""

import shutil
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from data.errors import ArtifactError, ExportError
from data.manifest import Manifest, read_labelled_reviews, read_manifest, write_manifest
from serving.analyzer import Analyzer, load_analyzer
from serving.batching.planner import TOKEN_BUDGET, plan_batches
from serving.engines.choice import PLAIN
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.logits import LOGITS
from serving.model_folder import MODEL_KIND, read_spec, write_spec
from serving.windows import pad
from training.encoder_products import ffn_down_products
from training.export import precision_in_graph, quietly
from training.parity import INT8_LIMITS, Parity, broken_limits, measure_parity, probe_texts
from training.qdq import QDQ_NAME, quantize_qdq
from training.qdq import SCHEMES as QDQ_SCHEMES

CALIBRATION_TEXTS: Final = 256
"""Of the training part, for scales that do not depend on the batch."""

Keep = Callable[[onnx.NodeProto], bool]


def _is_head(node: onnx.NodeProto) -> bool:
    return "_head" in node.name


SCHEMES: Final[dict[str, bool]] = {"all products": False, "all products but FFN-down": True}
"""Scheme → whether the feed-forward's second products stay in float. The heads always stay: they
are 0.1% of the work and decide the label. So do the embeddings: ONNX Runtime gives the whole table
one scale, which saved disk, no time, and made four label flips of one among 374 texts."""


def quantize_graph(source: Path, target: Path, scheme: str) -> None:
    """Write a classifier's INT8 graph of one scheme."""
    down = ffn_down_products(onnx.load(str(source)).graph) if SCHEMES[scheme] else frozenset()
    quantize_products(
        source,
        target,
        ("MatMul", "Attention"),
        lambda node: _is_head(node) or node.name in down,
    )


def quantize_products(source: Path, target: Path, operators: Sequence[str], keep: Keep) -> None:
    """Write a graph whose products are INT8, activations scaled by batch, weights by channel.

    Args:
        source: fused graph in fp32.
        target: where to.
        operators: types of nodes that become INT8.
        keep: whether one of them stays in float.
    """
    nodes = onnx.load(str(source)).graph.node
    with quietly():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(operators),
            # A Gemm is first cut into a MatMul of this other name and an Add.
            nodes_to_exclude=[
                name for node in nodes if keep(node) for name in (node.name, f"{node.name}_MatMul")
            ],
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Fused graphs carry no shapes for some tensors; ORT then needs to be told their type.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "WeightSymmetric": True},
        )


def quantize_encoder(parent: Path, split: Path, out: Path, *, threads: int = 2) -> Manifest:
    """Quantise an onnx-fp32 model folder to INT8.

    Args:
        parent: folder of format onnx-fp32.
        split: folder of kind "split"; its validation part is what both are compared on.
        out: empty folder for the INT8 model.
        threads: compute threads.

    Raises:
        ExportError: no scheme keeps the parent's answers, or nothing was quantised.
        ArtifactError: an input is missing or altered.
    """
    manifest = read_manifest(parent, MODEL_KIND)
    read_manifest(split, "split")
    graph = out / "model.onnx"
    reference = load_analyzer(parent, engine=PLAIN, threads=threads)
    if reference.spec.format != "onnx-fp32":
        raise ArtifactError(
            f"{str(parent)!r} has format {reference.spec.format!r}, expected 'onnx-fp32'; "
            "pass what the export step wrote"
        )
    out.mkdir(parents=True, exist_ok=True)
    texts = probe_texts(split / "validation.jsonl", reference.spec.max_tokens)
    refused: dict[str, list[str]] = {}
    accepted: tuple[str, Parity] | None = None
    for scheme in SCHEMES:
        quantize_graph(parent / "model.onnx", graph, scheme)
        engine = OnnxRuntimeEngine(graph, LOGITS, threads=threads)
        export = Analyzer(reference.tokenizer, engine, reference.spec, manifest)
        parity = measure_parity(reference, export, texts)
        if not (problems := broken_limits(parity, INT8_LIMITS)):
            accepted = (scheme, parity)
            break
        refused[scheme] = problems
    if accepted is None:
        graph.unlink()
        raise ExportError(
            f"no INT8 scheme keeps the answers of {str(parent)!r}: {refused!r}; serve onnx-fp32"
        )
    precision = precision_in_graph(graph)
    if not precision["integer_products"]:
        raise ExportError(
            f"{str(graph)!r} computes nothing in INT8: {precision!r}; not called INT8"
        )
    qdq = _write_qdq(parent, split, out, reference, texts, threads)
    shutil.copy2(parent / "tokenizer.json", out / "tokenizer.json")
    write_spec(out, read_spec(parent).model_copy(update={"format": "onnx-int8"}))
    facts = {k: v for k, v in manifest.facts.items() if k != "parity_tensorrt_graph"}
    return write_manifest(
        out,
        MODEL_KIND,
        facts
        | {
            "format": "onnx-int8",
            "parent_digest": manifest.digest,
            "bytes": graph.stat().st_size,
            "scheme": accepted[0],
            "refused_schemes": refused,
            "parity": accepted[1].model_dump(),
            "precision": precision,
            "qdq": qdq,
        },
    )


def _write_qdq(
    parent: Path,
    split: Path,
    out: Path,
    reference: Analyzer,
    texts: Sequence[str],
    threads: int,
) -> dict[str, Any]:
    """Write ``qdq.onnx`` if a scheme keeps the parent's answers; says which, or why none does.

    It is a second graph, for TensorRT and OpenVINO: without it the folder still serves.
    """
    graph = out / QDQ_NAME
    reviews = islice(read_labelled_reviews(split / "train.jsonl"), CALIBRATION_TEXTS)
    ids = reference.windows([row.review.text for row in reviews]).ids
    batches = [
        pad([ids[row] for row in rows], reference.pad_id)
        for rows in plan_batches([len(window) for window in ids], TOKEN_BUDGET)
    ]
    refused: dict[str, list[str]] = {}
    for scheme in QDQ_SCHEMES:
        report = quantize_qdq(
            parent / "tensorrt.onnx", graph, batches, scheme=scheme, threads=threads
        )
        engine = OnnxRuntimeEngine(graph, LOGITS, threads=threads)
        export = Analyzer(reference.tokenizer, engine, reference.spec, reference.manifest)
        parity = measure_parity(reference, export, texts)
        if not (problems := broken_limits(parity, INT8_LIMITS)):
            return report.model_dump() | {
                "parity": parity.model_dump(),
                "refused_schemes": refused,
            }
        refused[scheme] = problems
    graph.unlink()
    return {"scheme": None, "refused_schemes": refused}
