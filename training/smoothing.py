"""SmoothQuant: outliers of a few channels move from the states into the weights, exactly in float.

``states / s`` times ``s * weight`` is the same product, and a good ``s`` makes both easy to round.
The division is folded into what makes the states where that costs nothing: a LayerNorm that
nothing else reads, the constant inside GELU, the value projection below attention. Elsewhere a Mul
is inserted, as where a residual reads the same LayerNorm. Source: Xiao et al., arXiv 2211.10438.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from serving.engines.protocol import Floats
from training.activations import Activations
from training.encoder_products import Product, Wiring

ALPHAS: Final = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Tried for each tensor; 0 leaves it as it is."""
LEVELS: Final = 127
_NOTHING: Final = np.float32(0)
Place = Literal["layer norm", "value projection", "constant", "inserted"]


def rounded(values: Floats, step: Floats | float) -> Floats:
    """Values through symmetric INT8 and back."""
    return np.asarray(np.clip(np.rint(values / step), -LEVELS, LEVELS) * step, dtype=np.float32)


def smoothing_scales(states_max: Floats, weights: Floats, alpha: float) -> Floats:
    """What each channel of the states is divided by, (channels,); ones for ``alpha`` 0.

    Args:
        states_max: (channels,), largest magnitudes.
        weights: (channels, outputs) of all products that read the states.
        alpha: how much of the difficulty moves into the weights, 0 to 1.
    """
    if not alpha:
        return np.ones_like(states_max)
    floor = np.float32(1e-5)
    weight_max = np.abs(weights).max(axis=1)
    scales = np.maximum(states_max, floor) ** alpha / np.maximum(weight_max, floor) ** (1 - alpha)
    # Only ratios matter; around 1, nothing leaves the range of fp16.
    scales /= np.exp(np.log(scales).mean())
    return np.asarray(np.clip(scales, 0.01, 100.0), dtype=np.float32)


def rounding_loss(seen: Activations, weights: Floats, scales: Floats) -> Floats:
    """What INT8 changes in the product, (sampled tokens, outputs)."""
    smoothed = weights * scales[:, None]
    weight_step = np.maximum(np.abs(smoothed).max(axis=0), 1e-12) / LEVELS
    step = max(float((seen.channel_max / scales).max()), 1e-12) / LEVELS
    states = rounded(seen.sample / scales, step)
    return states @ rounded(smoothed, weight_step) - seen.sample @ weights


def best_alpha(seen: Activations, weights: Floats) -> float:
    """The alpha that loses least."""
    return min(
        ALPHAS,
        key=lambda alpha: float(
            np.square(
                rounding_loss(seen, weights, smoothing_scales(seen.channel_max, weights, alpha))
            ).mean()
        ),
    )


def divide_states(
    model: onnx.ModelProto, products: Sequence[Product], scales: Floats
) -> tuple[Place, str]:
    """Divide a tensor by ``scales`` for the products that read it, and multiply their weights.

    Args:
        model: changed in place; float answers stay the same.
        products: all that are to read the tensor divided; they share it.
        scales: (channels,).

    Returns:
        Where the division went, and the tensor that the products read now.
    """
    wiring = Wiring(model.graph)
    states = products[0].states
    nodes = {product.node: product for product in products}
    readers = wiring.readers[states]
    for node in readers:
        if node.name in nodes:
            _replace(model, wiring, node, 1, scales[:, None])
    maker = wiring.maker.get(states)
    if maker is not None and all(node.name in nodes for node in readers):
        if maker.op_type == "LayerNormalization":
            for index in range(1, len(maker.input)):
                _replace(model, wiring, maker, index, np.float32(1) / scales)
            return "layer norm", states
        if _fold_into_value(model, wiring, maker, scales):
            return "value projection", states
        if _fold_into_constant(model, wiring, maker, scales):
            return "constant", states
    return "inserted", _insert(model, states, set(nodes), scales)


def add_to_biases(model: onnx.ModelProto, products: Sequence[Product], offsets: Floats) -> None:
    """Add to the biases of products, so that INT8 is right on average.

    Args:
        model: changed in place; a product without a bias stays as it is.
        products: in the order that the offsets are laid side by side in.
        offsets: (all their outputs,).
    """
    wiring = Wiring(model.graph)
    node_of = {node.name: node for node in model.graph.node}
    ends = np.cumsum([product.outputs for product in products])
    for product, own in zip(products, np.split(offsets, ends[:-1]), strict=True):
        for reader in wiring.readers[node_of[product.node].output[0]]:
            for index, name in enumerate(reader.input):
                if reader.op_type == "Add" and name in wiring.constants:
                    _replace(model, wiring, reader, index, np.float32(1), own)


def _replace(
    model: onnx.ModelProto,
    wiring: Wiring,
    node: onnx.NodeProto,
    index: int,
    factor: Floats | np.float32,
    offset: Floats | np.float32 = _NOTHING,
) -> None:
    """Give a node a constant of its own: the one it has, times a factor, plus an offset."""
    values = numpy_helper.to_array(wiring.constants[node.input[index]])
    name = f"{node.name}_{index}_smoothed"
    while name in wiring.constants:
        name += "_again"
    scaled = numpy_helper.from_array(
        (values.astype(np.float32) * factor + offset).astype(values.dtype), name
    )
    model.graph.initializer.append(scaled)
    wiring.constants[name] = scaled
    node.input[index] = name


def _only(wiring: Wiring, tensor: str, op_type: str) -> onnx.NodeProto | None:
    """What makes a tensor, if it is of that kind and one node alone reads the tensor."""
    maker = wiring.maker.get(tensor)
    if maker is None or maker.op_type != op_type or len(wiring.readers[tensor]) != 1:
        return None
    return maker


def _fold_into_value(
    model: onnx.ModelProto, wiring: Wiring, maker: onnx.NodeProto, scales: Floats
) -> bool:
    """Attention mixes tokens, not channels: the value projection may as well be divided."""
    transposed = _only(wiring, maker.input[0], "Transpose") if maker.op_type == "Reshape" else None
    mixed = _only(wiring, transposed.input[0], "MatMul") if transposed else None
    heads = _only(wiring, mixed.input[1], "Transpose") if mixed else None
    split = _only(wiring, heads.input[0], "Reshape") if heads else None
    biased = _only(wiring, split.input[0], "Add") if split else None
    if biased is None:
        return False
    constant = [index for index, name in enumerate(biased.input) if name in wiring.constants]
    if len(constant) != 1:
        return False
    value = _only(wiring, biased.input[1 - constant[0]], "MatMul")
    if value is None or value.input[1] not in wiring.constants:
        return False
    if wiring.constants[value.input[1]].dims[-1] != len(scales):
        return False  # keys and values of fewer heads than queries
    _replace(model, wiring, value, 1, np.float32(1) / scales)
    _replace(model, wiring, biased, constant[0], np.float32(1) / scales)
    return True


def _fold_into_constant(
    model: onnx.ModelProto, wiring: Wiring, maker: onnx.NodeProto, scales: Floats
) -> bool:
    """GELU ends in products with one half; that half may be another for each channel."""
    if maker.op_type != "Mul":
        return False
    factors = [_only(wiring, name, "Mul") for name in maker.input]
    for node in (maker, *(factor for factor in factors if factor is not None)):
        for index, name in enumerate(node.input):
            if name in wiring.constants and np.prod(wiring.constants[name].dims) == 1:
                _replace(model, wiring, node, index, np.float32(1) / scales)
                return True
    return False


def _insert(model: onnx.ModelProto, states: str, nodes: set[str], scales: Floats) -> str:
    """A Mul between a tensor and the products of those names; returns its output."""
    graph = model.graph
    readers = [node for node in graph.node if node.name in nodes]
    weight = next(each for each in graph.initializer if each.name == readers[0].input[1])
    kind = helper.tensor_dtype_to_np_dtype(weight.data_type)
    smoothed = f"{states}_smoothed"
    factor = numpy_helper.from_array((1 / scales).astype(kind), f"{smoothed}_factor")
    graph.initializer.append(factor)
    for node in readers:
        node.input[0] = smoothed
    first = next(index for index, node in enumerate(graph.node) if node.name in nodes)
    graph.node.insert(first, helper.make_node("Mul", [states, factor.name], [smoothed], smoothed))
    return smoothed
