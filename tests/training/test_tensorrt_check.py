import pytest

from data.errors import ExportError
from data.manifest import read_manifest
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


def test_a_refusal_is_recorded_with_what_the_builder_said(embedding_int8, tmp_path, monkeypatch):
    def refuse(graph, *, max_batch, max_tokens):
        raise ExportError(f"{graph.name} for {max_batch} windows of {max_tokens} tokens: no")

    monkeypatch.setattr("training.tensorrt_check.check_tensorrt_shape", refuse)
    graphs = check_tensorrt(embedding_int8, tmp_path / "check", max_batch=4).facts["graphs"]
    said = {"status": "refused", "reason": "qdq.onnx for 4 windows of 24 tokens: no"}
    assert graphs["qdq.onnx"] == said
