import importlib.util
import json

import numpy as np
import pytest
import tensorrt_rtx_bindings
import torch

from data.errors import EngineError, ExportError
from serving.engines.tensor_rt import TensorRtEngine
from serving.engines.tensor_rt_plan import Profile
from serving.logits import LOGITS
from training.build_engine import build_engine, build_plan, choose_precision, layer_types
from training.half import write_half


def layer(kind, name, types):
    return {"LayerType": kind, "Name": name, "Inputs": [{"Format/Datatype": t} for t in types]}


INT8 = layer("gemm", "q", ["Row major Int8 format", "Int8"])
HALF = layer("MatrixMultiply", "scores", ["Half"])
NORM = layer("kgen", "layer_norm", ["Float"])


def test_a_real_builder_builds_profiles_of_fixed_batches(tiny_onnx, tmp_path):
    """TensorRT-RTX stands in for TensorRT: the same parser, builder and API, without a GPU."""
    half = tmp_path / "half.onnx"
    write_half(tiny_onnx / "tensorrt.onnx", half)
    profiles = [Profile(batch=4, tokens=8), Profile(batch=2, tokens=24)]
    engine = build_plan(tensorrt_rtx_bindings, half, profiles, target="SM89")
    assert len(engine) > 10_000


def test_what_the_parser_refuses_is_said(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="TensorRT refuses"):
        build_plan(
            tensorrt_rtx_bindings,
            tmp_path / "no.onnx",
            [Profile(batch=1, tokens=8)],
            target="SM89",
        )


def test_layers_are_counted_by_what_they_read():
    types, share = layer_types(json.dumps({"Layers": [INT8, INT8, HALF, NORM]}))
    assert types == {"int8": 2, "fp16": 1, "fp32": 1}
    assert share == pytest.approx(2 / 3)


def test_an_engine_without_details_is_refused():
    with pytest.raises(ExportError, match="DETAILED"):
        layer_types(json.dumps({"Layers": ["q", "k"]}))


@pytest.mark.parametrize(
    ("int8_ms", "share", "kept", "reason"),
    [
        (None, 0.0, "fp16", "no graph with Q/DQ"),
        (1.0, 0.2, "fp16", "only 20%"),
        (3.0, 0.9, "fp16", "INT8 is slower here: 3.000 ms against 2.000 ms"),
        (1.0, 0.9, "int8", "1.000 ms against 2.000 ms"),
    ],
)
def test_int8_is_kept_only_where_it_is_int8_and_faster(int8_ms, share, kept, reason):
    precision, why = choose_precision(2.0, int8_ms, share)
    assert precision == kept
    assert reason in why


def test_without_tensorrt_nothing_is_written(tiny_onnx, tmp_path):
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(EngineError, match=r"\.\[trt\]"):
        build_engine(
            {"fp16": tiny_onnx / "tensorrt.onnx"},
            [5, 9],
            tmp_path / "out",
            outputs=LOGITS,
            token_budget=64,
            max_tokens=24,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
def test_on_a_gpu_the_engine_answers(tiny_onnx, tmp_path):
    if not torch.cuda.is_available() or importlib.util.find_spec("tensorrt") is None:
        pytest.skip("no NVIDIA GPU with TensorRT here: nothing can run an engine")
    build_engine(
        {"fp16": tiny_onnx / "tensorrt.onnx"},
        [5, 9, 24],
        tmp_path / "out",
        outputs=LOGITS,
        token_budget=64,
        max_tokens=24,
    )
    ids = np.full((2, 9), 7, dtype=np.int64)
    answer = TensorRtEngine(tmp_path / "out", LOGITS).run(ids, np.ones_like(ids))
    assert answer["sentiment"].shape == (2, 3)
