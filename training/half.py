"""An fp32 graph with fp16 types: what TensorRT, which is strongly typed, computes in half.

Works on a graph with Q/DQ too: its scales become fp16, its INT8 stays. Inputs stay integers, and
outputs become fp16.
"""

from pathlib import Path
from typing import Final

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from training.export import quietly

HALF_OPSET: Final = 19
"""The first whose QuantizeLinear takes fp16."""


def is_half(model: onnx.ModelProto) -> bool:
    """Whether a graph has fp16 weights."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)


def with_half_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in an opset whose Q/DQ takes fp16 scales."""
    version = next(each.version for each in model.opset_import if not each.domain)
    if version >= HALF_OPSET:
        return model
    return onnx.version_converter.convert_version(model, HALF_OPSET)


def write_half(graph: Path, out: Path) -> None:
    """Write a graph with fp16 types; one that has them already is copied."""
    model = onnx.load(str(graph))
    if not is_half(model):
        with quietly():
            model = convert_float_to_float16(with_half_opset(model), keep_io_types=False)
    onnx.save(model, str(out))
