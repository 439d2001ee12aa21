"""Which matrix products of an exported encoder belong to its layers, and what each is for.

Read from how the graph is wired, never from names, so that ELECTRA, BERT, RoBERTa, DistilBERT,
MPNet and their like are all found. What has no role (embeddings, their projection, pooling, heads)
stays in float.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import onnx

from data.errors import ExportError

Role = Literal["attention in", "attention out", "ffn up", "ffn down"]
ROLES: Final[tuple[Role, ...]] = ("attention in", "attention out", "ffn up", "ffn down")

_FUSED_ACTIVATIONS: Final = frozenset({"BiasGelu", "FastGelu", "QuickGelu"})
_ACTIVATIONS: Final = _FUSED_ACTIVATIONS | {"Erf", "Gelu", "Relu", "Tanh", "Sigmoid", "Elu"}
_PASSED: Final = _ACTIVATIONS | {"Add", "Mul", "Div", "Sub", "Pow", "Reshape", "Transpose", "Cast"}
"""What lies between a product and what gives it its role; anything else ends the search."""


@dataclass(frozen=True)
class Product:
    """A product of a layer's states by a constant matrix.

    Attributes:
        node: name of the MatMul.
        role: what it computes in its layer.
        states: tensor on the left, (batch, tokens, inputs).
        weight: initializer on the right, (inputs, outputs).
        inputs: rows of the weight.
        outputs: its columns.
    """

    node: str
    role: Role
    states: str
    weight: str
    inputs: int
    outputs: int


class Wiring:
    """Who makes and who reads each tensor of a graph. Valid until the graph changes."""

    def __init__(self, graph: onnx.GraphProto):
        """Index a graph."""
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.maker: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.output:
                self.maker[name] = node
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    def above(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """Nodes that make a tensor, nearest first, up to what ends the search."""
        return _walk(
            tensor,
            lambda name: [self.maker[name]] if name in self.maker else [],
            lambda node: node.input,
        )

    def below(self, tensor: str) -> Iterator[onnx.NodeProto]:
        """Nodes that a tensor goes into, nearest first, down to what ends the search."""
        return _walk(tensor, lambda name: self.readers.get(name, []), lambda node: node.output)

    def multiplies_states(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a product of two computed tensors: attention itself."""
        return node.op_type == "MatMul" and not any(name in self.constants for name in node.input)

    def role(self, product: onnx.NodeProto) -> Role | None:
        """What a product by a constant matrix computes; None if it is no layer's."""
        above, below = list(self.above(product.input[0])), list(self.below(product.output[0]))
        if any(node.op_type in _ACTIVATIONS for node in above):
            return "ffn down"
        if any(self.multiplies_states(node) for node in above):
            return "attention out"
        if any(node.op_type in _ACTIVATIONS for node in below):
            return "ffn up"
        if any(self.multiplies_states(node) for node in below):
            return "attention in"
        return None


def _walk(
    tensor: str,
    nodes_at: Callable[[str], Sequence[onnx.NodeProto]],
    names_beyond: Callable[[onnx.NodeProto], Sequence[str]],
) -> Iterator[onnx.NodeProto]:
    names, seen = [tensor], set[str]()
    while names:
        for node in nodes_at(names.pop(0)):
            if node.output[0] in seen:
                continue
            seen.add(node.output[0])
            yield node
            if node.op_type in _PASSED:
                names.extend(names_beyond(node))


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in inferred.graph.value_info
        if value.type.tensor_type.HasField("shape")
    }


def ffn_down_products(graph: onnx.GraphProto) -> frozenset[str]:
    """Names of the products that bring an activation's outputs back to the hidden size.

    Args:
        graph: of either exporter, fused or not.
    """
    wiring = Wiring(graph)
    return frozenset(
        node.name
        for node in graph.node
        if node.op_type == "MatMul"
        and node.input[1] in wiring.constants
        and wiring.role(node) == "ffn down"
    )


def encoder_products(model: onnx.ModelProto) -> list[Product]:
    """Products of the encoder's layers, in the graph's order.

    Args:
        model: of the dynamo exporter.

    Raises:
        ExportError: there are none, as in a graph whose attention is fused into one operator.
    """
    wiring, ranks = Wiring(model.graph), _ranks(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "MatMul" or node.input[1] not in wiring.constants:
            continue
        weight = wiring.constants[node.input[1]]
        # Pooling and heads read one vector a window, (batch, hidden).
        if ranks.get(node.input[0]) != 3 or len(weight.dims) != 2:  # noqa: PLR2004  # as named
            continue
        if (role := wiring.role(node)) is not None:
            found.append(
                Product(node.name, role, node.input[0], weight.name, *map(int, weight.dims))
            )
    if not found:
        raise ExportError(
            "the graph has no layer of an encoder that can be quantised (MatMul of (batch, "
            "tokens, hidden) by a constant matrix); pass the dynamo exporter's graph, not a "
            "fused one"
        )
    return found
