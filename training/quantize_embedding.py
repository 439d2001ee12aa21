"""An exported embedding model to INT8, as thoroughly as its neighbours allow.

int8.onnx   for ONNX Runtime: INT8 products, scaled while it runs
qdq.onnx    for TensorRT and OpenVINO: explicit Q/DQ, scales from training texts

The most thorough scheme is tried first; one that moves the vectors too far gives way to the next. A
format that no scheme holds is left out, with every reason in the manifest; it is an error only
where the recipe demands it. Scales and texts come from the training part, never from another.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from data.errors import ArtifactError, ExportError
from data.manifest import Manifest, read_labelled_reviews, read_manifest, write_manifest
from serving.batching.planner import TOKEN_BUDGET, plan_batches
from serving.embedder import Embedder
from serving.embedding_folder import EMBEDDING_KIND, read_embedding_spec
from serving.windows import pad
from training.activations import Batch
from training.encoder_products import ffn_down_products
from training.export import precision_in_graph, quietly
from training.export_embedding import copy_folder, embedder_of, graph_facts
from training.qdq import SCHEMES as QDQ_SCHEMES
from training.qdq import QdqReport, quantize_qdq
from training.quantize_encoder import quantize_products
from training.retrieval_parity import LIMITS, broken_retrieval, measure_retrieval, parity_texts

INT8: Final = "int8.onnx"
QDQ: Final = "qdq.onnx"
CALIBRATION_TEXTS: Final = 256
Quantise = Callable[[Path, Path], QdqReport | None]
"""From a graph to a quantised one."""


def _is_projection(node: onnx.NodeProto) -> bool:
    # SentenceEncoder's own name, whatever the backbone: after the pooling, one row a text.
    return node.name.startswith("/dense/")


def _by_batch(source: Path, target: Path) -> None:
    quantize_products(source, target, ("MatMul", "Attention"), _is_projection)


def _by_batch_but_ffn_down(source: Path, target: Path) -> None:
    down = ffn_down_products(onnx.load(str(source)).graph)
    quantize_products(
        source,
        target,
        ("MatMul", "Attention"),
        lambda node: _is_projection(node) or node.name in down,
    )


def _by_block(source: Path, target: Path) -> None:
    """Scales for every 128 values of a weight's column and of a token's state, not for a batch."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quietly():
        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(source)), bits=8, block_size=128, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(target), False)  # noqa: FBT003  # weights inside


SCHEMES: Final[dict[str, Quantise]] = {
    "all products, activations by batch": _by_batch,
    "all products but FFN-down, activations by batch": _by_batch_but_ffn_down,
    "all products but attention's, activations by block": _by_block,
}
"""From fastest to most careful. Seen on all-MiniLM-L6-v2 and Korean reviews, against fp32 (cos mean
and p1, share of its CPU time): 0.9870, 0.9728, 0.48; 0.9938, 0.9851, 0.68; 0.9993, 0.9985, 0.78."""


def quantize_embedding(
    exported: Path,
    split: Path,
    out: Path,
    *,
    demanded: Sequence[str] = (),
    threads: int = 2,
) -> Manifest:
    """Add the quantised graphs that answer like the source to an exported embedding folder.

    Args:
        exported: what the export step wrote.
        split: folder of kind "split"; its validation part is what graphs are compared on.
        out: empty folder; gets what ``exported`` holds and the quantised graphs.
        demanded: formats ("int8", "qdq") without which it fails.
        threads: compute threads.

    Raises:
        ExportError: a demanded format loses too much under every scheme.
        ArtifactError: an input is missing or altered.
    """
    parent = read_manifest(exported, EMBEDDING_KIND)
    read_manifest(split, "split")
    if not (exported / "model.onnx").is_file():
        raise ArtifactError(
            f"{str(exported)!r} holds no model.onnx; pass what the export step wrote"
        )
    copy_folder(exported, out)
    texts = parity_texts(split / "validation.jsonl", read_embedding_spec(exported).max_tokens)
    source = embedder_of(exported / "model.onnx", threads=threads)
    expected = source.embed(texts)
    formats = dict(parent.facts.get("formats", {}))
    left_out = dict(parent.facts.get("left_out", {}))

    graphs = {
        INT8: (exported / "model.onnx", SCHEMES),
        QDQ: (
            exported / "graph.onnx",
            _static_schemes(_calibration(source, split / "train.jsonl"), threads),
        ),
    }
    for name, (graph, schemes) in graphs.items():
        refused: dict[str, list[str]] = {}
        for scheme, quantise in schemes.items():
            report = quantise(graph, out / name)
            found = embedder_of(out / name, threads=threads).embed(texts)
            parity = measure_retrieval(expected, found)
            if not (problems := broken_retrieval(parity, LIMITS["int8"])):
                told = {} if report is None else {"quantised": report.model_dump()}
                facts = graph_facts(out / name, parity.model_dump(), **told)
                formats[name] = facts | {"scheme": scheme, "refused_schemes": refused}
                break
            refused[scheme] = problems
        else:
            (out / name).unlink(missing_ok=True)
            left_out[name] = refused
    _check_demanded(demanded, formats, left_out, exported)
    if INT8 in formats and not precision_in_graph(out / INT8)["integer_products"]:
        raise ExportError(f"{str(out / INT8)!r} computes nothing in INT8; not called INT8")
    return write_manifest(
        out,
        EMBEDDING_KIND,
        parent.facts
        | {
            "format": "onnx-int8" if INT8 in formats else "onnx-fp32",
            "parent_digest": parent.digest,
            "formats": formats,
            "left_out": left_out,
        },
    )


def _calibration(model: Embedder, part: Path) -> list[Batch]:
    """Windows of training texts, padded as they are served."""
    texts = [row.review.text for row in read_labelled_reviews(part)][:CALIBRATION_TEXTS]
    if not texts:
        raise ArtifactError(f"{str(part)!r} holds no text to take scales from; pass a split")
    windows = model.windows(texts).ids
    batches = plan_batches([len(window) for window in windows], TOKEN_BUDGET)
    return [pad([windows[row] for row in rows], model.pad_id) for rows in batches]


def _static_schemes(batches: Sequence[Batch], threads: int) -> dict[str, Quantise]:
    def of(scheme: str) -> Quantise:
        return lambda source, target: quantize_qdq(
            source, target, batches, scheme=scheme, threads=threads
        )

    return {scheme: of(scheme) for scheme in QDQ_SCHEMES}


def _check_demanded(
    demanded: Sequence[str], formats: dict[str, Any], left_out: dict[str, Any], exported: Path
) -> None:
    missing = [name for name in demanded if f"{name}.onnx" not in formats]
    if missing:
        raise ExportError(
            f"the recipe demands {missing!r}, and no scheme keeps the neighbours of "
            f"{str(exported)!r}: {left_out!r}; serve fp32 and take them out of `demanded`"
        )
