"""INT8 in OpenVINO: made from a float graph, and proved to be what the processor computes.

Weights become INT8, one scale an output channel. Activations are scaled where they are used: one
scale for each group of features of each token (DYNAMIC_QUANTIZATION_GROUP_SIZE), so there is no
calibration and no batch-mate in it. On MiniLM, 600 sentences: cosine 0.9989, p1 0.9981, top-10
overlap 0.96 in groups of 128; 0.9977, 0.9959 and 0.94 in whole rows; static scales 0.981 and 0.82,
with FFN-down in float 0.9934 and 0.89.
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from data.errors import EngineError

if TYPE_CHECKING:
    import openvino

LEAST_OUTPUTS: Final = 64
"""A classifier's heads are narrower: there is nothing to gain, and an answer to lose."""
_LIMIT: Final = 127
_ROUNDED_AWAY: Final = 0.4


def read_in_float32(core: "openvino.Core", graph: Path) -> "openvino.Model":
    """Read a graph; one in fp16 as fp32, because OpenVINO reads no Q/DQ whose scales are fp16.

    Raises:
        EngineError: it is no ONNX file.
    """
    import onnx

    try:
        model = onnx.load(str(graph))
    except Exception as error:  # protobuf's own has no stubs to name it by
        raise EngineError(
            f"OpenVINO cannot load {str(graph)!r}: {error}; export the model again"
        ) from error
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    constants = [
        attribute.t
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    ]
    halves = [t for t in (*model.graph.initializer, *constants) if t.data_type == half]
    if not halves:
        return core.read_model(graph)
    for tensor in halves:
        values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in {"to", "dtype", "output_dtype"} and attribute.i == half:
                attribute.i = single
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = single
    del model.graph.value_info[:]
    return core.read_model(model.SerializeToString())


def is_quantised(model: "openvino.Model") -> bool:
    """Whether a graph brings its own scales of activations: Q/DQ nodes."""
    return any(op.get_type_name() == "FakeQuantize" for op in model.get_ops()) or any(
        _stored(op) for op in model.get_ops()
    )


def quantised_products(model: "openvino.Model") -> int:
    """How many weight matrices a Q/DQ graph stores in INT8."""
    return sum(_stored(op) for op in model.get_ops())


def _stored(op: "openvino.Node") -> bool:
    matrix = 2
    return bool(
        op.get_type_name() == "Constant"
        and op.get_element_type().get_type_name() in {"i8", "u8"}
        and len(op.get_output_shape(0)) == matrix
    )


def compress(
    model: "openvino.Model", group_size: int | None, graph: Path
) -> tuple[set[tuple[int, int]], int]:
    """Store the weights of a float graph's matrix products in INT8, in place.

    Args:
        model: as OpenVINO read it.
        group_size: features of one token that share a scale; None is as many as all allow.
        graph: its file, for messages.

    Returns:
        (inputs, outputs) of the products that changed, and the group size.

    Raises:
        EngineError: no product is wide enough.
    """
    found = [(op, weight) for op in model.get_ordered_ops() if (weight := _weight(op)) is not None]
    widths = [_sides(op, weight) for op, weight in found]
    group = group_size or math.gcd(*(inputs for inputs, _ in widths))
    changed = set()
    for (op, weight), (inputs, outputs) in zip(found, widths, strict=True):
        if group and inputs % group == 0 and outputs >= LEAST_OUTPUTS:
            _store_int8(op, weight)
            changed.add((inputs, outputs))
    if not changed:
        raise EngineError(
            f"{str(graph)!r} has no matrix product whose width is a multiple of "
            f"group_size={group!r}, widths {sorted(set(widths))!r}; serve it in fp32 or bf16"
        )
    return changed, group


def _weight(op: "openvino.Node") -> Any:
    """The constant (rows, columns) that a product multiplies by; None where there is none."""
    matrix = 2
    if op.get_type_name() != "MatMul":
        return None
    source = op.input_value(1).get_node()
    if source.get_type_name() != "Constant" or len(source.get_output_shape(0)) != matrix:
        return None
    return source


def _sides(op: "openvino.Node", weight: "openvino.Node") -> tuple[int, int]:
    rows, columns = weight.get_output_shape(0)
    return (columns, rows) if op.get_attributes()["transpose_b"] else (rows, columns)


def _store_int8(op: "openvino.Node", weight: Any) -> None:
    from openvino import opset13

    values = np.asarray(weight.get_data(), dtype=np.float32)
    axis = 1 if op.get_attributes()["transpose_b"] else 0
    scale = np.abs(values).max(axis=axis, keepdims=True) / _LIMIT
    scale[scale == 0] = 1.0
    rounded = np.clip(np.round(values / scale), -_LIMIT, _LIMIT).astype(np.int8)
    stored = opset13.convert(opset13.constant(rounded), "f32")
    op.input(1).replace_source_output(
        opset13.multiply(stored, opset13.constant(scale.astype(np.float32))).output(0)
    )


def check_static(compiled: "openvino.CompiledModel", expected: int, graph: Path) -> None:
    """Refuse a Q/DQ graph whose products run in float.

    Raises:
        EngineError: names how many products do.
    """
    kinds = [
        (info["layerType"].astype(str), info["primitiveType"].astype(str))
        for info in (op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops())
    ]
    real = sum(
        layer in {"FullyConnected", "MatMul"} and kernel.endswith(("i8", "u8"))
        for layer, kernel in kinds
    )
    if real < expected or not real:
        raise EngineError(
            f"{str(graph)!r} has {expected} matrix products in INT8, of which OpenVINO computes "
            f"{real} in INT8 and the rest in float; quantise with symmetric Q/DQ on both inputs, "
            "or serve 'openvino-bf16'"
        )


def check_dynamic(
    core: "openvino.Core",
    settings: dict[str, object],
    shapes: Collection[tuple[int, int]],
    group: int,
) -> None:
    """Refuse to call INT8 what the processor computes in float.

    The runtime model names both alike, so arithmetic is asked: beside a 127, INT8 rounds 0.4 away.

    Args:
        core: of OpenVINO.
        settings: that the model will be compiled with.
        shapes: (inputs, outputs) of the products.
        group: features that share a scale.

    Raises:
        EngineError: a product keeps what INT8 cannot hold.
    """
    from openvino import Model, PartialShape, Type, opset13

    for inputs, outputs in shapes:
        x = opset13.parameter(PartialShape([-1, inputs]), Type.f32)
        ones = opset13.convert(opset13.constant(np.ones((inputs, outputs), np.int8)), "f32")
        scale = opset13.constant(np.ones((1, outputs), np.float32))
        product = opset13.matmul(
            x, opset13.multiply(ones, scale), transpose_a=False, transpose_b=False
        )
        compiled = core.compile_model(Model([product], [x]), "CPU", settings)
        row = np.full((16, inputs), _ROUNDED_AWAY, dtype=np.float32)
        row[:, ::group] = _LIMIT
        answer = float(np.asarray(compiled(row)[0]).mean())
        exact, rounded = float(row[0].sum()), float(_LIMIT * inputs / group)
        if abs(answer - rounded) > abs(answer - exact):
            raise EngineError(
                f"OpenVINO computes the product of {inputs} x {outputs} in float on this "
                f"processor, not in INT8 (group_size={group!r}); serve 'openvino-bf16' or "
                "'openvino-fp32'"
            )
