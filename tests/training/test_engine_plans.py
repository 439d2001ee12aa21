"""The whole way from graphs to engines that serve.

TensorRT-RTX builds in TensorRT's place, and ONNX Runtime runs the graphs in the place of what was
built: all but TensorRT's own runtime and inspector is what runs on a GPU.
"""

import functools
import importlib.util
import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import training.build_engine
from data.errors import EngineError
from data.manifest import file_sha256, read_labelled_reviews, write_manifest
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, write_embedding_spec
from serving.engines import tensor_rt
from serving.engines.choice import load_embedder
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.engines.plan_folder import PlanSpec, read_plan_spec
from serving.engines.tensor_rt import TensorRtEngine
from training import engine_delivery, engine_plans
from training.build_engine import BuiltEngine, build_engine
from training.engine_sweep import PrecisionChoice
from training.retrieval_parity import parity_texts

TESTS = Path(__file__).parents[1]
write_graph = runpy.run_path(str(TESTS / "engine_graphs.py"))["write_graph"]
onnx_as_tensorrt = runpy.run_path(str(TESTS / "onnx_as_tensorrt.py"))["onnx_as_tensorrt"]
Spy = runpy.run_path(str(TESTS / "rtx_layers.py"))["Spy"]
pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write_graph(folder / "graph.onnx", int8=False)
    write_graph(folder / "qdq.onnx")
    write_embedding_spec(
        folder,
        EmbeddingSpec(
            name="tiny", architecture="bert", dimensions=64, max_tokens=24, overlap_tokens=4
        ),
    )
    write_manifest(folder, EMBEDDING_KIND, {})
    return folder


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Real builds by RTX, whose plans are then replaced by the graphs that they were built from."""
    rtx, spy, built = importlib.import_module("tensorrt_rtx_bindings"), Spy(), []

    def build(graph: Path, out: Path, *, profiles: Any, library: Any, **how: Any) -> BuiltEngine:
        made = build_engine(graph, out, profiles=profiles, library=rtx, **how)
        assert made.bytes
        library.__dict__.update(onnx_as_tensorrt(profiles, version=made.version).__dict__)
        out.write_bytes(graph.read_bytes())
        built.append(graph.name)
        return made._replace(sha256=file_sha256(out))

    library = SimpleNamespace(__version__=rtx.__version__)
    monkeypatch.setattr(training.build_engine, "Problems", spy)
    monkeypatch.setattr(engine_plans, "build_engine", build)
    monkeypatch.setattr(engine_plans, "engine_layers", lambda plan, library: spy.layers())
    monkeypatch.setattr(
        engine_plans, "TensorRtEngine", functools.partial(TensorRtEngine, device="cpu")
    )
    for module in (engine_plans, engine_delivery, tensor_rt):
        monkeypatch.setattr(module, "import_tensorrt", lambda: library)
        monkeypatch.setattr(module, "this_sm", lambda: "9.0")
    return SimpleNamespace(spy=spy, built=built)


def _windows() -> list[list[int]]:
    random = np.random.default_rng(2)
    return [random.integers(5, 45, size=int(n)).tolist() for n in random.integers(3, 24, size=80)]


def _plans(
    model: Path, out: Path, graph: str = "graph.onnx", *, quantized: Path | None = None
) -> PlanSpec:
    reference: Any = SimpleNamespace(
        engine=OnnxRuntimeEngine(model / graph, ["embedding"]), pad_id=0
    )
    return engine_plans.build_plans(
        model,
        out,
        windows=_windows(),
        reference=reference,
        max_tokens=24,
        timings=out.parent / "timings",
        quantized=quantized,
        batch_tokens=96,
        max_padding=1.5,
    )


def test_engines_are_built_compared_and_measured(model, tmp_path, stand_in):
    spec = _plans(model, tmp_path / "plans")
    assert stand_in.built == ["graph.onnx", "qdq.onnx"]
    assert read_plan_spec(tmp_path / "plans") == spec
    # On a CPU either may be the faster one; what serves is what the reason's figures say.
    assert spec.chosen == ("int8" if "int8" in spec.plans else "fp16")
    assert ("int8" in spec.left_out) == (spec.chosen == "fp16")
    assert "× the tokens per second of FP16" in spec.reason
    assert spec.plans["fp16"].graph == "graph.onnx"
    assert spec.plans["fp16"].graph_sha256 == file_sha256(model / "graph.onnx")
    names = {path.name for path in (tmp_path / "plans").iterdir()}
    assert {"plan.json", "fp16.plan", "fp16.layers.json", "int8.layers.json"} <= names
    assert {"sweep.json", "sweep.md", "sweep.svg"} <= names
    assert ("int8.plan" in names) == ("int8" in spec.plans)
    rows = json.loads((tmp_path / "plans" / "sweep.json").read_bytes())
    assert {row["precision"] for row in rows} == {"fp16", "int8"}
    assert {row["tokens"] for row in rows} == {profile.tokens for profile in spec.profiles}
    assert all(row["latency_ms"] > 0 and row["held_mib"] > 0 for row in rows)
    (timings,) = (tmp_path / "timings").iterdir()
    assert timings.name == f"tensorrt-{spec.tensorrt}-sm9.0.timings"


def test_int8_in_name_only_is_left_out(model, tmp_path, stand_in, monkeypatch):
    layers: list[str] = []

    def first(plan: bytes, library: Any) -> str:
        layers.append(stand_in.spy.layers())
        return layers[0]  # the FP16 engine's, for both

    monkeypatch.setattr(engine_plans, "engine_layers", first)
    spec = _plans(model, tmp_path / "plans")
    assert set(spec.plans) == {"fp16"}
    assert "not called INT8" in spec.left_out["int8"]
    assert spec.reason == "it is the only one that may serve"
    assert not (tmp_path / "plans" / "int8.plan").exists()


def test_what_answers_unlike_the_model_does_not_serve(model, tmp_path, stand_in):
    write_graph(model / "other.onnx", int8=False, kept_float=False)
    with pytest.raises(EngineError, match=r"no engine of .* may serve: .*does not answer like"):
        _plans(model, tmp_path / "plans", "other.onnx")
    assert not list((tmp_path / "plans").glob("*.plan"))


def test_without_a_q_dq_graph_fp16_alone_is_built(model, tmp_path, stand_in):
    (model / "qdq.onnx").unlink()
    write_manifest(model, EMBEDDING_KIND, {})
    spec = _plans(model, tmp_path / "plans")
    assert spec.chosen == "fp16"
    assert "none of ['qdq.onnx']" in spec.left_out["int8"]


def test_the_q_dq_graph_may_lie_in_a_folder_of_its_own(model, tmp_path, stand_in, monkeypatch):
    shutil.copytree(model, tmp_path / "quantized")
    (model / "qdq.onnx").unlink()
    sealed = write_manifest(model, EMBEDDING_KIND, {})
    monkeypatch.setattr(
        engine_plans, "choose_precision", lambda swept: PrecisionChoice("int8", "asked")
    )
    spec = _plans(model, tmp_path / "plans", quantized=tmp_path / "quantized")
    assert set(spec.plans) == {"fp16", "int8"}
    assert spec.model == sealed.digest


def test_in_place_what_was_there_stays_until_all_is_built(model, stand_in, monkeypatch):
    reference = SimpleNamespace(
        engine=OnnxRuntimeEngine(model / "graph.onnx", ["embedding"]),
        pad_id=0,
        spec=SimpleNamespace(max_tokens=24),
        windows=lambda texts: SimpleNamespace(ids=_windows()),
    )
    monkeypatch.setattr(engine_delivery, "load_embedder", lambda folder, engine: reference)
    timings = model.parent / "timings"
    spec = engine_delivery.build_in_place(model, texts=["가"], timings=timings)
    assert read_plan_spec(model / "tensorrt") == spec
    monkeypatch.setattr(
        engine_delivery, "build_plans", lambda *_, **__: (_ for _ in ()).throw(EngineError("no"))
    )
    with pytest.raises(EngineError, match="no"):
        engine_delivery.build_in_place(model, texts=["가"], timings=timings)
    assert read_plan_spec(model / "tensorrt") == spec
    assert not list(model.glob(".tensorrt*"))


def test_lengths_are_of_the_training_part_and_answers_of_the_validation_part(
    embedding_int8, language_split, tmp_path, stand_in, monkeypatch
):
    asked = {}

    def build(model, out, **how):
        asked.update(how)
        raise EngineError("far enough")

    monkeypatch.setattr(engine_delivery, "build_plans", build)
    with pytest.raises(EngineError, match="far enough"):
        engine_delivery.deliver_engines(
            embedding_int8, embedding_int8, language_split, tmp_path / "out", timings=tmp_path
        )
    embedder = load_embedder(embedding_int8)
    train = [row.review.text for row in read_labelled_reviews(language_split / "train.jsonl")]
    held = parity_texts(language_split / "validation.jsonl", embedder.spec.max_tokens)
    assert asked["windows"] == [list(window) for window in embedder.windows(train).ids]
    assert asked["compared"] == [list(window) for window in embedder.windows(held).ids]
    assert not {*map(tuple, asked["compared"])} & {*map(tuple, asked["windows"])}


def test_no_more_answers_than_the_limit_are_compared(model, tmp_path, stand_in, monkeypatch):
    counts = []

    def answers(engine, windows, pad_id):
        counts.append(len(windows))
        raise EngineError("far enough")

    monkeypatch.setattr(engine_plans, "answers_of", answers)
    monkeypatch.setattr(engine_plans, "MOST_COMPARED", 60)
    with pytest.raises(EngineError, match="far enough"):
        _plans(model, tmp_path / "plans")
    assert counts == [60]


def test_without_a_gpu_the_command_says_so(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from typer.testing import CliRunner

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    done = CliRunner().invoke(engine_delivery.app, [str(model)])
    assert done.exit_code == 1
    assert "EngineError: " in done.output
    assert "NVIDIA GPU" in done.output.replace("\n", " ")
    assert not list(model.glob("*tensorrt*"))


@pytest.mark.gpu
def test_on_a_gpu_tensorrt_builds_looks_into_and_serves(model: Path, tmp_path: Path) -> None:
    """The same way by TensorRT itself; INT8 may be faster or not, and is INT8 if it serves."""
    import torch

    if not torch.cuda.is_available() or not importlib.util.find_spec("tensorrt"):
        pytest.skip("needs an NVIDIA GPU and TensorRT 11: pip install '.[trt]'")
    spec = _plans(model, tmp_path / "plans")
    print(spec.model_dump_json(indent=2))
    assert "fp16" in spec.plans
    assert (tmp_path / "plans" / "int8.layers.json").is_file()
    engine = TensorRtEngine(tmp_path / "plans", ["embedding"])
    windows = _windows()
    found = engine_plans.answers_of(engine, windows, 0)
    reference = OnnxRuntimeEngine(model / "graph.onnx", ["embedding"])
    expected = engine_plans.answers_of(reference, windows, 0)
    assert engine_plans.inexact(expected, found, spec.chosen) == []
    alone = engine_plans.answers_of(engine, windows[:1], 0)
    np.testing.assert_allclose(alone, found[:1], atol=0.05)
