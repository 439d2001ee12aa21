"""Torch to ONNX, by both exporters, each compared with its source.

model.onnx     the TorchScript exporter's graph: ONNX Runtime fuses attention only from this one
tensorrt.onnx  the dynamo exporter's graph: the one that TensorRT and OpenVINO take
"""

import contextlib
import io
import logging
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from torch import nn

from data.errors import ExportError
from data.manifest import Manifest, read_manifest, write_manifest
from serving.analyzer import Analyzer, load_analyzer
from serving.encoder import load_encoder
from serving.engines.choice import PLAIN
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.logits import LOGITS
from serving.model_folder import MODEL_KIND, read_spec, write_spec
from training.parity import Parity, ParityLimits, check_parity, measure_parity, probe_texts

INPUTS = ("input_ids", "attention_mask")
OPSET = 18
DYNAMO_OPSET = 19
"""The first that quantises float16, and the last in which a GELU is not one closed operator, whose
outliers could not be moved into its weights."""


def _example(longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.arange(5, 5 + 2 * longest).reshape(2, longest) % 50 + 5
    mask = torch.ones_like(ids)
    mask[1, longest // 2 :] = 0
    return ids, mask


def quietly() -> contextlib.ExitStack:
    """Keep the exporters' warnings out of the log while the context lasts."""
    stack = contextlib.ExitStack()
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    # The exporters warn of ops and shapes that this graph does not have; parity is what counts.
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    stack.callback(logging.disable, previous)
    return stack


def export_fused(model: nn.Module, path: Path, outputs: Sequence[str] = LOGITS) -> None:
    """Write the graph for ONNX Runtime.

    Args:
        model: a ``TextEncoder`` in eager attention, a classifier or an embedding model.
        path: of the graph.
        outputs: what its ``forward`` answers with, in order.
    """
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    axes |= {name: {0: "batch"} for name in outputs}
    config: Any = model.backbone.config  # type: ignore[union-attr]
    with quietly():
        torch.onnx.export(
            model,
            _example(16),
            str(path),
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
        fused = optimizer.optimize_model(
            str(path),
            model_type="bert",
            num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size,
            optimization_options=FusionOptions("bert"),
        )
    fused.save_model_to_file(str(path))


def export_dynamo(model: nn.Module, path: Path, outputs: Sequence[str] = LOGITS) -> None:
    """Write the graph for TensorRT and OpenVINO; weights inside the file, types as the model's.

    Args:
        model: a ``TextEncoder``, a classifier or an embedding model; for a graph in float16 give
            it after ``halved``.
        path: of the graph.
        outputs: what its ``forward`` answers with, in order.
    """
    batch, tokens = torch.export.Dim.DYNAMIC, torch.export.Dim.DYNAMIC
    with quietly():
        program = torch.onnx.export(
            model,
            _example(16),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_shapes={name: {0: batch, 1: tokens} for name in INPUTS},
            opset_version=DYNAMO_OPSET,
            external_data=False,
        )
        if program is None:
            raise ExportError("torch.onnx.export returned nothing; run the export step again")
        # The exporter calls a table's rows "embedding", and does not see that an output is, too.
        answers = {id(value) for value in program.model.graph.outputs}
        for node in program.model.graph:
            for value in node.outputs:
                if value.name in outputs and id(value) not in answers:
                    value.name = f"{value.name}_inside"
        program.save(str(path), external_data=False)


class _FloatNorm(nn.Module):
    """A layer norm that computes in float32 inside a float16 graph.

    The squares of outlying activations pass float16's 65,504 (NVIDIA/TensorRT#2564).
    """

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.norm = norm.float()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(states.float())
        return normed.to(states.dtype)


def halved(backbone: nn.Module) -> nn.Module:
    """A backbone in float16, in place, whose layer norms compute in float32."""
    backbone.half()
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(parent, name, _FloatNorm(child))
    return backbone


def precision_in_graph(path: Path) -> dict[str, Any]:
    """What a graph really computes in: its matrix products by kind, its weights by type."""
    graph = onnx.load(str(path)).graph
    integer = {
        *("DynamicQuantizeMatMul", "MatMulInteger", "MatMulNBits", "QAttention", "QLinearMatMul")
    }
    operators = Counter(node.op_type for node in graph.node)
    products = {name: n for name, n in operators.items() if "MatMul" in name or "Attention" in name}
    products |= {name: n for name, n in operators.items() if name in {"Gemm", "FusedMatMul"}}
    elements: Counter[str] = Counter()
    for tensor in graph.initializer:
        size = 1
        for dimension in tensor.dims:
            size *= dimension
        elements[onnx.TensorProto.DataType.Name(tensor.data_type)] += size
    return {
        "matrix_products": products,
        "integer_products": sum(n for name, n in products.items() if name in integer),
        "weight_elements": dict(elements),
    }


def _compare(source: Path, graph: Path, part: Path, threads: int) -> Parity:
    reference = load_analyzer(source, engine=PLAIN, threads=threads)
    spec = read_spec(source)
    export = Analyzer(
        reference.tokenizer,
        OnnxRuntimeEngine(graph, LOGITS, threads=threads),
        spec,
        reference.manifest,
    )
    return measure_parity(reference, export, probe_texts(part, spec.max_tokens))


def export_onnx(model: Path, split: Path, out: Path, *, threads: int = 2) -> Manifest:
    """Export a torch model folder to an ONNX one, both graphs checked.

    Args:
        model: folder of format torch-fp32.
        split: folder of kind "split"; its validation part is what both are compared on.
        out: empty folder for the export.
        threads: compute threads.

    Raises:
        ExportError: a graph does not answer like its source.
        ArtifactError: an input is missing or altered.
    """
    source = read_manifest(model, MODEL_KIND)
    read_manifest(split, "split")
    out.mkdir(parents=True, exist_ok=True)
    export_fused(load_encoder(model, attention="eager"), out / "model.onnx")
    export_dynamo(load_encoder(model), out / "tensorrt.onnx")
    part = split / "validation.jsonl"
    parities = {
        name: _compare(model, out / name, part, threads) for name in ("model.onnx", "tensorrt.onnx")
    }
    for name, parity in parities.items():
        check_parity(parity, ParityLimits(), what=f"{name} of {str(model)!r}")
    shutil.copy2(model / "tokenizer.json", out / "tokenizer.json")
    write_spec(out, read_spec(model).model_copy(update={"format": "onnx-fp32"}))
    return write_manifest(
        out,
        MODEL_KIND,
        source.facts
        | {
            "format": "onnx-fp32",
            "parent_digest": source.digest,
            "bytes": (out / "model.onnx").stat().st_size,
            "parity": parities["model.onnx"].model_dump(),
            "parity_tensorrt_graph": parities["tensorrt.onnx"].model_dump(),
            "precision": precision_in_graph(out / "model.onnx"),
        },
    )
