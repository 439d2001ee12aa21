import onnx
import pytest

from data.errors import ExportError
from data.manifest import read_manifest
from training.half import is_half
from training.rtx_gate import RtxReport
from training.tensorrt_check import CHECK_KIND, check_tensorrt, tensorrt_verdict

pytest.importorskip(
    "tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed: its builder cannot be asked"
)

REPORT = RtxReport(version="1", compute_capability="8.9", layers=3, engine_bytes=100, build_s=1.0)


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
    assert tensorrt_verdict({"qdq.onnx": graphs["qdq.onnx"]}) == "absent"
    assert tensorrt_verdict(graphs) == "accepted"


def test_what_is_built_in_half_is_asked_in_half(embedding_int8, tmp_path, monkeypatch):
    asked = []

    def refuse_half(graph, *, max_batch, max_tokens):
        asked.append((graph.name, is_half(onnx.load(str(graph)))))
        if graph.name == "qdq_fp16.onnx":
            raise ExportError(f"{graph.name} for {max_batch} windows of {max_tokens} tokens: no")
        return REPORT

    monkeypatch.setattr("training.tensorrt_check.check_tensorrt_shape", refuse_half)
    facts = check_tensorrt(embedding_int8, tmp_path / "check", max_batch=4).facts
    assert asked == [("graph_fp16.onnx", True), ("qdq.onnx", False), ("qdq_fp16.onnx", True)]
    said = {"status": "refused", "reason": "qdq_fp16.onnx for 4 windows of 24 tokens: no"}
    assert facts["graphs"]["qdq.onnx"] == said
    assert facts["verdict"] == "refused"
    # INT8 for ONNX Runtime is nothing that TensorRT is asked about.
    check_tensorrt(embedding_int8, tmp_path / "again", max_batch=4, demanded=("int8",))
    with pytest.raises(ExportError, match=r"demands 'qdq'.*refused.*qdq_fp16\.onnx"):
        check_tensorrt(embedding_int8, tmp_path / "none", max_batch=4, demanded=("int8", "qdq"))
