"""What TensorRT really built: layers by type, and whether what should be INT8 is.

Read from the engine inspector's JSON at verbosity DETAILED, in the form of TensorRT 11: a layer has
``Inputs``, ``Constants`` and ``Outputs``, each with a ``Datatype``, and its ``Metadata`` names the
ONNX nodes that went into it. The field was ``Format/Datatype`` in version 10.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from pydantic import BaseModel, ConfigDict

from data.errors import EngineError, ExportError
from serving.engines.tensor_rt_library import listener, said

LEAST_INT8_SHARE: Final = 0.9
_NODE: Final = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_TYPE_FIELDS: Final = ("Datatype", "DataType", "Format/Datatype")
_SHOWN: Final = 4


class LayerReport(BaseModel):
    """What an engine computes in.

    Attributes:
        layers: how many, by the type of what goes in.
        products: matrix products, by the type that they multiply.
        int8_asked: products that the graph wants in INT8.
        int8_share: share of their multiply-adds that is in INT8; 1 where none is wanted.
        not_int8: those that are not, and what they are instead.
    """

    model_config = ConfigDict(frozen=True)

    layers: dict[str, int]
    products: dict[str, int]
    int8_asked: int
    int8_share: float
    not_int8: dict[str, str]


def products_in_int8(graph: Path) -> dict[str, int]:
    """Products of a Q/DQ graph whose both sides are dequantised: node → multiply-adds a token."""
    model = onnx.load(str(graph), load_external_data=False)
    made = {name: node for node in model.graph.node for name in node.output}
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    asked = {}
    for node in model.graph.node:
        sides = [made.get(name) for name in node.input[:2]]
        if node.op_type in {"MatMul", "Gemm"} and all(
            side is not None and side.op_type == "DequantizeLinear" for side in sides
        ):
            weights = [sizes[s.input[0]] for s in sides if s is not None and s.input[0] in sizes]
            asked[node.name] = max(weights, default=1)
    return asked


def engine_layers(plan: bytes, library: Any) -> str:
    """The inspector's JSON about an engine; needs a GPU that can load it.

    Args:
        plan: the engine, built at verbosity DETAILED.
        library: TensorRT's module.

    Raises:
        EngineError: it cannot be loaded here.
    """
    log = listener(library)
    runtime = library.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"TensorRT {library.__version__} cannot load the engine to look into it: {said(log)}; "
            "build and inspect on the GPU that will serve"
        )
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(library.LayerInformationFormat.JSON))


def read_layers(text: str, asked: Mapping[str, int]) -> LayerReport:
    """Read the inspector's JSON.

    Args:
        text: of ``engine_layers``.
        asked: of ``products_in_int8``; empty for a float engine.

    Raises:
        EngineError: it is not such JSON, or was built with less verbosity.
    """
    layers = _detailed(text)
    carriers: dict[str, list[str]] = {name: [] for name in asked}
    types, products = Counter[str](), Counter[str]()
    for layer in layers:
        types[_type(layer, "Inputs") or _type(layer, "Outputs") or "none"] += 1
        if _is_product(layer):
            multiplied = _multiplied(layer)
            products[multiplied] += 1
            for name in _nodes(layer) & carriers.keys():
                carriers[name].append(multiplied)
    not_int8 = {
        name: ", ".join(sorted(set(found))) or "in no layer that multiplies"
        for name, found in carriers.items()
        if set(found) != {"Int8"}  # in every profile
    }
    wanted = sum(asked.values())
    return LayerReport(
        layers=dict(types),
        products=dict(products),
        int8_asked=len(asked),
        int8_share=1 - sum(asked[name] for name in not_int8) / wanted if wanted else 1.0,
        not_int8=not_int8,
    )


def check_int8(report: LayerReport, *, least_share: float = LEAST_INT8_SHARE) -> None:
    """Refuse to call INT8 what runs in floating point.

    Raises:
        ExportError: the graph wants nothing in INT8, or too little of it is.
    """
    if not report.int8_asked:
        raise ExportError("the graph wants no product in INT8; build from the one with Q/DQ")
    if report.int8_share < least_share:
        shown = dict(list(report.not_int8.items())[:_SHOWN])
        raise ExportError(
            f"{report.int8_share:.1%} of the products that should be INT8 are, expected "
            f"{least_share:.0%} at least: not called INT8. Of {len(report.not_int8)} that are not: "
            f"{shown!r}; leave them in float in the graph, or serve fp16"
        )


def _detailed(text: str) -> list[dict[str, Any]]:
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"the engine inspector's answer is not JSON with 'Layers': {text[:80]!r}; look into "
            "it with the TensorRT that built the engine"
        ) from error
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise EngineError(
            "the engine inspector names layers without their types; build the engine with "
            "ProfilingVerbosity.DETAILED"
        )
    found: list[dict[str, Any]] = layers
    return found


def _type(layer: Mapping[str, Any], field: str) -> str | None:
    """The type of a field's first tensor that is not a mask, such as ``Half`` or ``Int8``."""
    types = [_tensor_type(tensor) for tensor in layer.get(field) or []]
    return next((kind for kind in types if kind not in {"Bool", None}), None)


def _tensor_type(tensor: Mapping[str, Any]) -> str | None:
    for field in _TYPE_FIELDS:
        if tensor.get(field):
            return str(tensor[field])
    return None


def _is_product(layer: Mapping[str, Any]) -> bool:
    """Whether a layer multiplies matrices; an epilogue names the same nodes and does not."""
    kind, tactic = str(layer.get("LayerType", "")).lower(), str(layer.get("TacticName", "")).lower()
    return "gemm" in kind or "matrixmultiply" in kind or "gemm" in tactic


def _multiplied(layer: Mapping[str, Any]) -> str:
    """The type of what is multiplied: INT8 only where both sides are."""
    first = _type(layer, "Inputs") or "unknown"
    weights = [
        _tensor_type(tensor)
        for tensor in layer.get("Constants") or []
        if sum(side > 1 for side in tensor.get("Dimensions", ())) > 1
    ]
    weight = weights[0] if weights else (layer.get("Weights") or {}).get("Type", first)
    return first if first == weight else f"{first} × {weight}"


def _nodes(layer: Mapping[str, Any]) -> set[str]:
    return set(_NODE.findall(str(layer.get("Metadata", ""))))
