"""A tiny graph in the shape of an encoder's, with Q/DQ or without."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN = 64
WORDS = 50


def write_graph(path: Path, *, int8: bool = True, kept_float: bool = True) -> Path:
    """Embeddings, two products and a sum over real tokens; the first product is INT8 by Q/DQ."""
    random = np.random.default_rng(4)
    matrix = random.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) / 8
    scale = np.abs(matrix).max(axis=0) / 127
    values = {
        "words": random.normal(size=(WORDS, HIDDEN)).astype(np.float32),
        "first": matrix,
        "second": random.normal(size=(HIDDEN, HIDDEN)).astype(np.float32) / 8,
        "bias": random.normal(size=HIDDEN).astype(np.float32),
        "last": np.array([2]),
        "over": np.array([1]),
    }
    left, right = "x", "first"
    nodes = [helper.make_node("Gather", ["words", "input_ids"], ["x"])]
    if int8:
        values |= {
            "step": np.float32(0.03),
            "zero": np.int8(0),
            "first_q": np.clip(np.round(matrix / scale), -127, 127).astype(np.int8),
            "steps": scale,
            "zeros": np.zeros(HIDDEN, np.int8),
        }
        del values["first"]
        left, right = "x_dq", "first_dq"
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["x_q"]),
            helper.make_node("DequantizeLinear", ["x_q", "step", "zero"], ["x_dq"]),
            helper.make_node(
                "DequantizeLinear", ["first_q", "steps", "zeros"], ["first_dq"], axis=1
            ),
        ]
    nodes += [
        helper.make_node("MatMul", [left, right], ["y"], name="layer/first/MatMul"),
        helper.make_node("Add", ["y", "bias"], ["y_bias"]),
    ]
    if kept_float:
        nodes.append(
            helper.make_node("MatMul", ["y_bias", "second"], ["z"], name="layer/second/MatMul")
        )
    else:
        del values["second"]
    nodes += [
        helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["column"]),
        helper.make_node("Mul", ["z" if kept_float else "y_bias", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "over"], ["embedding"], keepdims=0),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", HIDDEN])
    graph = helper.make_graph(
        nodes, "tiny", ends, [out], [numpy_helper.from_array(v, n) for n, v in values.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
