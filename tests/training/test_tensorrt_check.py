from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from data.errors import ExportError
from data.manifest import read_manifest
from training.rtx_gate import check_tensorrt_shape
from training.tensorrt_check import CHECK_KIND, check_tensorrt

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: its builder cannot be asked"
)


def test_the_graphs_that_are_meant_for_tensorrt_are_taken(embedding_int8, tmp_path):
    facts = check_tensorrt(embedding_int8, tmp_path / "check", max_batch=8).facts
    assert facts["model"] == read_manifest(embedding_int8).digest
    assert {name: found["status"] for name, found in facts["graphs"].items()} == {
        "graph_fp16.onnx": "accepted",
        "qdq.onnx": "accepted",
    }
    assert facts["graphs"]["qdq.onnx"]["report"]["engine_bytes"] > 0
    read_manifest(tmp_path / "check", CHECK_KIND)


def test_a_graph_that_is_not_there_is_said_to_be_absent(embedding_onnx, tmp_path):
    graphs = check_tensorrt(embedding_onnx, tmp_path / "check", max_batch=2).facts["graphs"]
    assert graphs["qdq.onnx"]["status"] == "absent"


def test_a_graph_that_tensorrt_does_not_know_is_refused(tmp_path: Path):
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["input_ids"], ["y"], domain="own")],
        "odd",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    path = tmp_path / "odd.onnx"
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("own", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), str(path))
    with pytest.raises(ExportError, match=r"odd\.onnx"):
        check_tensorrt_shape(path, max_batch=2, max_tokens=8)
