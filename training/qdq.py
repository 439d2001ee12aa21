"""A dynamo-exported encoder in static INT8, as TensorRT takes it: explicit Q/DQ at its products.

Activations are symmetric INT8 with one scale a tensor, weights symmetric INT8 with one a channel;
nothing else is INT8: no bias, no residual, no embedding, no head. Scales come from windows that
are run here, so an answer never depends on its batch-mates. One file serves all: with fp32 types it
is INT8 in OpenVINO and ONNX Runtime, and training/half.py gives it the fp16 types that TensorRT
wants. (With fp16 types it is INT8 in OpenVINO too, as fast, but in ONNX Runtime it is not.)
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data
from pydantic import BaseModel, ConfigDict

from data.errors import ExportError
from data.manifest import file_sha256
from serving.engines.protocol import Floats
from training.activations import Batch, observe
from training.encoder_products import ROLES, Product, Role, encoder_products
from training.export import quietly
from training.half import is_half, with_half_opset
from training.smoothing import (
    Place,
    add_to_biases,
    best_alpha,
    divide_states,
    rounding_loss,
    smoothing_scales,
)


@dataclass(frozen=True)
class Scheme:
    """How one graph is quantised.

    Attributes:
        roles: products that become INT8; the others stay in float.
        smooth: outliers move into the weights first, and biases make up for what rounding
            changes on average (training/smoothing.py).
    """

    roles: tuple[Role, ...]
    smooth: bool


QDQ_NAME: Final = "qdq.onnx"
_FIRST_IN_BLOCK: Final = frozenset({"attention in", "ffn up"})
_BUT_FFN_DOWN: Final[tuple[Role, ...]] = ("attention in", "attention out", "ffn up")
_QUANTISERS: Final = ("QuantizeLinear", "DequantizeLinear")

SCHEMES: Final[dict[str, Scheme]] = {
    "min-max": Scheme(ROLES, smooth=False),
    "smoothquant": Scheme(ROLES, smooth=True),
    "smoothquant, ffn-down in float": Scheme(_BUT_FFN_DOWN, smooth=True),
}
"""From most thorough to most careful."""


class QdqReport(BaseModel):
    """What was quantised.

    Attributes:
        scheme: name in ``SCHEMES``.
        products: INT8 products by role.
        float_products: products by a constant matrix that stayed in float.
        int8_share: share of the multiply-adds of a window of ``mean_tokens`` that are in INT8.
        mean_tokens: of the calibration's windows.
        calibration_windows: how many were run.
        activation_scale_min: smallest step of an activation.
        activation_scale_max: largest one.
        weight_scale_min: smallest step of a weight's channel.
        weight_scale_max: largest one.
        alphas: how often each alpha was chosen.
        smoothing: how often a division was folded into what, or inserted.
        source_sha256: of the float graph.
        sha256: of the quantised one.
    """

    model_config = ConfigDict(frozen=True)

    scheme: str
    products: dict[str, int]
    float_products: int
    int8_share: float
    mean_tokens: float
    calibration_windows: int
    activation_scale_min: float
    activation_scale_max: float
    weight_scale_min: float
    weight_scale_max: float
    alphas: dict[str, int]
    smoothing: dict[str, int]
    source_sha256: str
    sha256: str


def quantize_qdq(
    graph: Path, out: Path, batches: Sequence[Batch], *, scheme: str, threads: int = 1
) -> QdqReport:
    """Write a graph with explicit Q/DQ.

    Args:
        graph: of the dynamo exporter, fp32 or fp16.
        out: the quantised graph.
        batches: padded windows to calibrate on, (ids, mask) each; never those measured on.
        scheme: name in ``SCHEMES``.
        threads: compute threads.

    Raises:
        ExportError: the graph has no encoder's products, the scheme is unknown, or what came out
            is not what TensorRT takes.
    """
    if scheme not in SCHEMES:
        raise ExportError(f"no Q/DQ scheme {scheme!r}; choose one of {list(SCHEMES)!r}")
    model = onnx.load(str(graph))
    if is_half(model):
        model = with_half_opset(model)
    every = encoder_products(model)
    chosen = [product for product in every if product.role in SCHEMES[scheme].roles]
    groups: dict[str, list[Product]] = {}
    for product in chosen:
        groups.setdefault(product.states, []).append(product)
    seen = observe(model, list(groups), batches, threads=threads)
    alphas, places = Counter[str](), Counter[Place]()
    ranges: dict[str, float] = {}
    # What attention and GELU put out comes first: it may be folded into the products before them.
    for own in sorted(groups.values(), key=lambda products: products[0].role in _FIRST_IN_BLOCK):
        states, activations, weights = own[0].states, seen[own[0].states], _weights(model, own)
        alpha = best_alpha(activations, weights) if SCHEMES[scheme].smooth else 0.0
        scales = smoothing_scales(activations.channel_max, weights, alpha)
        if alpha:
            place, states = divide_states(model, own, scales)
            alphas[str(alpha)] += 1
            places[place] += 1
        if SCHEMES[scheme].smooth:
            add_to_biases(model, own, -rounding_loss(activations, weights, scales).mean(axis=0))
        ranges[states] = float((activations.channel_max / scales).max())
    _quantize(model, out, [product.node for product in chosen], ranges)
    return _report(scheme, graph, out, batches, every, alphas, places)


def _weights(model: onnx.ModelProto, products: Sequence[Product]) -> Floats:
    """(inputs, all outputs): the weights of products that read the same tensor."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {node.name: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    return np.concatenate(
        [
            numpy_helper.to_array(constants[names[product.node]]).astype(np.float32)
            for product in products
        ],
        axis=1,
    )


def _quantize(
    model: onnx.ModelProto, out: Path, nodes: Sequence[str], ranges: Mapping[str, float]
) -> None:
    """Q/DQ by ONNX Runtime with our ranges, then what it does too much of undone."""
    found = {name: (np.float32(-most), np.float32(most)) for name, most in ranges.items()}
    with tempfile.TemporaryDirectory() as folder, quietly():
        cache = Path(folder) / "ranges.json"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, found), cache)
        quantize_static(
            model,
            out,
            None,
            calibration_cache_path=cache,
            nodes_to_quantize=list(nodes),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
            },
        )
    made = onnx.load(str(out))
    _keep_residuals_float(made, set(nodes))
    if is_half(made):
        _make_scales_half(made)
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    for node in made.graph.node:
        del node.metadata_props[:]  # the exporter writes paths of the machine into them
    onnx.save(made, str(out))


def _make_scales_half(model: onnx.ModelProto) -> None:
    """A scale has the type of what it scales; ONNX Runtime writes the activations' in fp32."""
    scales = {node.input[1] for node in model.graph.node if node.op_type in _QUANTISERS}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _keep_residuals_float(model: onnx.ModelProto, quantised: set[str]) -> None:
    """Give readers that are not quantised the float tensor; ONNX Runtime rounds it for all."""
    origin = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    dequantised = {
        node.output[0]: origin[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in origin
    }
    for node in model.graph.node:
        if node.name in quantised:
            continue
        for index, name in enumerate(node.input):
            if name in dequantised:
                node.input[index] = dequantised[name]


def _report(
    scheme: str,
    source: Path,
    made: Path,
    batches: Sequence[Batch],
    products: Sequence[Product],
    alphas: Mapping[str, int],
    places: Mapping[Place, int],
) -> QdqReport:
    """Count what is really in the file.

    Raises:
        ExportError: a bias is quantised, a zero point is not 0, or nothing is INT8.
    """
    graph = onnx.load(str(made)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantisers = [node for node in graph.node if node.op_type in _QUANTISERS]
    for node in quantisers:
        zero = constants[node.input[2]]
        if zero.dtype != np.int8 or zero.any():
            raise ExportError(
                f"node {node.name!r} has zero point {zero!r}; TensorRT takes symmetric INT8 alone: "
                "quantise the float graph again"
            )
    rounded = {node.output[0] for node in quantisers if node.op_type == "DequantizeLinear"}
    integer = {node.name for node in graph.node if node.input and set(node.input[:2]) <= rounded}
    done = [product for product in products if product.node in integer]
    if not done:
        raise ExportError(f"{str(made)!r} has no product in INT8; it is not called INT8")
    scales = {
        kind: [constants[node.input[1]].ravel() for node in quantisers if node.op_type == kind]
        for kind in _QUANTISERS
    }
    activation, weight = (np.concatenate(scales[kind]) for kind in _QUANTISERS)
    windows = sum(len(ids) for ids, _ in batches)
    mean_tokens = sum(int(mask.sum()) for _, mask in batches) / windows
    work, others = _multiply_adds(graph, products, integer, mean_tokens)
    return QdqReport(
        scheme=scheme,
        products=dict(Counter(product.role for product in done)),
        float_products=others,
        int8_share=mean_tokens * sum(each.inputs * each.outputs for each in done) / work,
        mean_tokens=mean_tokens,
        calibration_windows=windows,
        activation_scale_min=float(activation.min()),
        activation_scale_max=float(activation.max()),
        weight_scale_min=float(weight.min()),
        weight_scale_max=float(weight.max()),
        alphas=dict(alphas),
        smoothing=dict(places),
        source_sha256=file_sha256(source),
        sha256=file_sha256(made),
    )


def _multiply_adds(
    graph: onnx.GraphProto, products: Sequence[Product], integer: set[str], tokens: float
) -> tuple[float, int]:
    """Multiply-adds of one window of so many tokens, and products by a constant left in float."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    layers = [product for product in products if product.role == "attention out"]
    # Each layer multiplies queries by keys and probabilities by values.
    work = sum(tokens * product.inputs * product.outputs for product in products)
    work += sum(2 * tokens**2 * product.inputs for product in layers)
    others = [node for node in graph.node if node.op_type in {"MatMul", "Gemm"}]
    others = [node for node in others if node.input[1] in constants]
    named = {product.node for product in products}
    for node in others:
        if node.name not in named:
            size = float(np.prod(constants[node.input[1]].dims))
            work += size * (1.0 if node.op_type == "Gemm" else tokens)
    return work, sum(node.name not in integer for node in others)
