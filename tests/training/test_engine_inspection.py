"""What real builders build, and whether it is INT8: TensorRT-RTX's log in the inspector's form."""

import importlib
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

import training.build_engine
from data.errors import EngineError, ExportError
from serving.engines.plan_folder import Profile
from training.build_engine import build_engine
from training.engine_inspection import (
    check_int8,
    engine_layers,
    products_in_int8,
    read_layers,
)
from training.half import write_half

TESTS = Path(__file__).parents[1]
write_graph = runpy.run_path(str(TESTS / "engine_graphs.py"))["write_graph"]
Spy = runpy.run_path(str(TESTS / "rtx_layers.py"))["Spy"]
pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
PROFILES = (Profile(batch=4, tokens=16), Profile(batch=2, tokens=32))


@pytest.fixture(scope="module")
def rtx() -> Any:
    return importlib.import_module("tensorrt_rtx_bindings")


def _built(
    graph: Path, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, int]]:
    """The layers that RTX built from a graph in half precision, and the products asked in INT8."""
    spy = Spy()
    monkeypatch.setattr(training.build_engine, "Problems", spy)
    write_half(graph, tmp_path / "half.onnx")
    build_engine(tmp_path / "half.onnx", tmp_path / "p", profiles=PROFILES, library=library)
    return spy.layers(), products_in_int8(tmp_path / "half.onnx")


def test_a_q_dq_product_is_built_in_int8_and_the_other_in_half(rtx, tmp_path, monkeypatch):
    text, asked = _built(write_graph(tmp_path / "g.onnx"), rtx, tmp_path, monkeypatch)
    assert asked == {"layer/first/MatMul": 64 * 64}
    report = read_layers(text, asked)
    assert report.products == {"Int8": len(PROFILES), "Half": len(PROFILES)}
    assert report.layers["Int8"] >= len(PROFILES)
    assert report.layers["Int64"] >= len(PROFILES)
    assert report.int8_share == 1
    assert report.not_int8 == {}
    check_int8(report)


def test_what_runs_in_floating_point_is_not_called_int8(rtx, tmp_path, monkeypatch):
    text, asked = _built(write_graph(tmp_path / "g.onnx", int8=False), rtx, tmp_path, monkeypatch)
    assert asked == {}
    with pytest.raises(ExportError, match="Q/DQ"):
        check_int8(read_layers(text, asked))
    # The same engine, when its products were wanted in INT8.
    report = read_layers(text, {"layer/first/MatMul": 300, "layer/second/MatMul": 100})
    assert report.int8_share == 0
    assert report.not_int8 == {
        "layer/first/MatMul": "in no layer that multiplies",  # folded into the embeddings
        "layer/second/MatMul": "Half",
    }
    with pytest.raises(ExportError, match=r"0\.0% of the products .*not called INT8.*Half"):
        check_int8(report)


def _product(name: str, left: str, right: str, **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "LayerType": "gemm",
        "Inputs": [{"Dimensions": [-1, 64], "Datatype": left}],
        "Constants": [{"Dimensions": [64, 64], "Datatype": right}],
        "Outputs": [{"Dimensions": [-1, 64], "Datatype": "Half"}],
        "Metadata": f"[ONNX Layer: {name}]",
    } | more


def test_int8_in_one_profile_alone_or_on_one_side_alone_is_not_int8():
    layers = [
        _product("a", "Int8", "Int8"),
        _product("a", "Half", "Half"),  # of another profile
        _product("b", "Half", "Int8"),  # weights only
        _product("c", "Int8", "Int8", Metadata="[ONNX Layer: c][ONNX Layer: d]"),
        _product("e", "Int8", "Int8", LayerType="kgen"),  # an epilogue: it multiplies nothing
    ]
    report = read_layers(json.dumps({"Layers": layers}), dict.fromkeys("abcde", 10))
    assert report.products == {"Int8": 2, "Half": 1, "Half × Int8": 1}
    assert report.not_int8 == {
        "a": "Half, Int8",
        "b": "Half × Int8",
        "e": "in no layer that multiplies",
    }
    assert report.int8_share == pytest.approx(0.4)
    check_int8(report, least_share=0.4)


def test_the_mask_of_attention_is_not_what_it_multiplies():
    attention = _product("a", "Bool", "Half", LayerType="kgen", TacticName="_gemm_mha_v2_0x1")
    attention["Inputs"].append({"Dimensions": [-1, 64], "Datatype": "Half"})
    report = read_layers(json.dumps({"Layers": [attention]}), {})
    assert report.products == report.layers == {"Half": 1}


def test_the_form_of_version_10_is_read():
    layer = {
        "Name": "a",
        "LayerType": "CaskGemmMatrixMultiply",
        "Inputs": [{"Dimensions": [8, 64], "Format/Datatype": "Int8"}],
        "Weights": {"Type": "Int8", "Count": 4096},
        "Outputs": [{"Dimensions": [8, 64], "Format/Datatype": "Half"}],
        "Metadata": "[ONNX Layer: a]",
    }
    assert read_layers(json.dumps({"Layers": [layer]}), {"a": 1}).int8_share == 1


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": []}', '{"Layers": ["a + b"]}', "[]"])
def test_too_little_detail_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match=r"inspector"):
        read_layers(text, {"a": 1})


def test_an_engine_that_cannot_be_loaded_is_told(rtx, tmp_path):
    write_graph(tmp_path / "g.onnx")
    plan = tmp_path / "p"
    build_engine(tmp_path / "g.onnx", plan, profiles=PROFILES[:1], library=rtx)
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU to load it on")
    with pytest.raises(EngineError, match=r"cannot load the engine .*CUDA"):
        engine_layers(plan.read_bytes(), rtx)
