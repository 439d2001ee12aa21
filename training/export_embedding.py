"""An embedding model to ONNX in fp32 and fp16, pooling and normalisation inside, each compared.

model.onnx       fp32 by the TorchScript exporter: ONNX Runtime fuses attention only from this one
graph.onnx       fp32 by the dynamo exporter, for OpenVINO
graph_fp16.onnx  the same in float16 types, for TensorRT; layer norms and pooling in float32
"""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from data.errors import ExportError
from data.manifest import MANIFEST_NAME, Manifest, read_manifest, start_artifact, write_manifest
from serving.embedder import Embedder
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, read_embedding_spec
from serving.engines.choice import load_embedder
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.sentence_encoder import OUTPUT, SentenceEncoder, load_sentence_encoder
from training.export import export_dynamo, export_fused, halved, precision_in_graph
from training.retrieval_parity import LIMITS, broken_retrieval, measure_retrieval, parity_texts

GRAPHS: Final = {"model.onnx": "fp32", "graph.onnx": "fp32", "graph_fp16.onnx": "fp16"}
"""Graph → the precision whose limits it must hold (training/retrieval_parity.py)."""


def export_embedding(model: Path, split: Path, out: Path, *, threads: int = 2) -> Manifest:
    """Export the torch model of an embedding folder, every graph checked.

    Args:
        model: an embedding folder with source/.
        split: folder of kind "split"; its validation part is what the graphs are compared on.
        out: empty folder; gets what ``model`` holds and the graphs.
        threads: compute threads.

    Raises:
        ExportError: an fp32 graph does not answer like its source. One in fp16 that does not is
            left out, with the reason in the manifest.
        ArtifactError: an input is missing or altered.
    """
    source = read_manifest(model, EMBEDDING_KIND)
    read_manifest(split, "split")
    spec = read_embedding_spec(model)
    copy_folder(model, out)
    torch.set_num_threads(threads)
    export_fused(_torch(out, spec, attention="eager"), out / "model.onnx", [OUTPUT])
    export_dynamo(_torch(out, spec), out / "graph.onnx", [OUTPUT])
    half = _torch(out, spec)
    halved(half.backbone)
    export_dynamo(half, out / "graph_fp16.onnx", [OUTPUT])
    reference = load_embedder(model, engine="torch-fp32", threads=threads)
    texts = parity_texts(split / "validation.jsonl", spec.max_tokens)
    expected = reference.embed(texts)
    formats: dict[str, Any] = {}
    left_out: dict[str, Any] = {}
    for name, precision in GRAPHS.items():
        graph = out / name
        parity = measure_retrieval(expected, embedder_of(graph, threads=threads).embed(texts))
        problems = broken_retrieval(parity, LIMITS[precision])
        if problems and precision == "fp32":
            raise ExportError(
                f"{name} of {str(model)!r} does not answer like its source: {'; '.join(problems)}; "
                "run the export step again, and serve the torch model until then"
            )
        if problems:
            graph.unlink()
            left_out[name] = "; ".join(problems)
            continue
        formats[name] = graph_facts(graph, parity.model_dump())
    return write_manifest(
        out,
        EMBEDDING_KIND,
        source.facts
        | {
            "format": "onnx-fp32",
            "parent_digest": source.digest,
            "formats": formats,
            "left_out": left_out,
        },
    )


def embedder_of(graph: Path, *, threads: int = 1) -> Embedder:
    """One graph of an embedding folder in ONNX Runtime, whatever engine it was made for."""
    folder = graph.parent
    return Embedder(
        Tokenizer.from_file(str(folder / "tokenizer.json")),
        OnnxRuntimeEngine(graph, [OUTPUT], threads=threads),
        read_embedding_spec(folder),
    )


def graph_facts(graph: Path, parity: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a manifest says of one graph."""
    return {
        "bytes": graph.stat().st_size,
        "parity": parity,
        "precision": precision_in_graph(graph),
        **more,
    }


def copy_folder(source: Path, out: Path) -> None:
    """All files of a sealed folder but its manifest, under second names where that can be."""
    start_artifact(out)
    for name in read_manifest(source).files:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source / name, target)  # weights are large and never written again
        except OSError:
            shutil.copy2(source / name, target)
    (out / MANIFEST_NAME).unlink(missing_ok=True)


def _torch(folder: Path, spec: EmbeddingSpec, *, attention: str = "sdpa") -> SentenceEncoder:
    return load_sentence_encoder(
        folder / "source", pooling=spec.pooling, normalize=spec.normalize, attention=attention
    )
