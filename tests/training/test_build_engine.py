"""TensorRT-RTX's builder, which needs no GPU, builds here what TensorRT builds on one."""

import importlib.util
import runpy
from pathlib import Path
from typing import Any

import pytest

from data.errors import EngineError, ExportError, SettingsError
from data.manifest import file_sha256
from serving.engines.plan_folder import Profile
from training.build_engine import build_engine, use_timings
from training.half import write_half

write_graph = runpy.run_path(str(Path(__file__).parents[1] / "engine_graphs.py"))["write_graph"]
pytestmark = pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
PROFILES = (Profile(batch=2, tokens=16), Profile(batch=8, tokens=16), Profile(batch=4, tokens=32))


@pytest.fixture(scope="module")
def rtx() -> Any:
    return importlib.import_module("tensorrt_rtx_bindings")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    write_half(write_graph(tmp_path / "fp32.onnx"), tmp_path / "graph.onnx")
    return tmp_path / "graph.onnx"


def test_an_engine_and_its_timings_are_written(rtx: Any, graph: Path, tmp_path: Path) -> None:
    plan, timings = tmp_path / "int8.plan", tmp_path / "kept" / "timings"
    first = build_engine(graph, plan, profiles=PROFILES, timing_cache=timings, library=rtx)
    assert first.version == rtx.__version__
    assert first.sha256 == file_sha256(plan)
    assert first.bytes == plan.stat().st_size > 1000
    assert not first.began_warm
    assert timings.stat().st_size  # RTX keeps a file and no timings in it
    again = build_engine(graph, plan, profiles=PROFILES, timing_cache=timings, library=rtx)
    assert again.began_warm
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fp32.onnx", "graph.onnx", "int8.plan", "kept"
    ]  # fmt: skip


class Config:
    """What a builder's configuration does with timings: those of another GPU it refuses."""

    def __init__(self, accepted: bytes) -> None:
        self.accepted, self.used = accepted, b"none"

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        fits = cache in {b"", self.accepted}
        self.used = cache if fits else self.used
        return fits


@pytest.mark.parametrize(("kept", "used"), [(b"ours", b"ours"), (b"of another GPU", b"")])
def test_timings_of_another_gpu_begin_anew(kept: bytes, used: bytes, tmp_path: Path) -> None:
    (tmp_path / "timings").write_bytes(kept)
    config = Config(accepted=b"ours")
    assert use_timings(config, tmp_path / "timings") is (used == b"ours")
    assert config.used == used
    assert not use_timings(Config(accepted=b"ours"), tmp_path / "none")


def test_what_tensorrt_does_not_read_is_told(rtx: Any, graph: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"refuses .*broken\.onnx.*export it again"):
        build_engine(broken, tmp_path / "p", profiles=PROFILES, library=rtx)
    with pytest.raises(ExportError, match=r"there is no graph .*none\.onnx"):
        build_engine(tmp_path / "none.onnx", tmp_path / "p", profiles=PROFILES, library=rtx)
    with pytest.raises(SettingsError, match="profiles"):
        build_engine(graph, tmp_path / "p", profiles=(), library=rtx)
    assert not (tmp_path / "p").exists()


def test_a_graph_of_fixed_axes_is_refused(rtx: Any, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(str(write_graph(tmp_path / "g.onnx")))
    for value in model.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, (3, 8), strict=True):
            axis.dim_value = size
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    with pytest.raises(EngineError, match=r"TensorRT.*export the"):
        build_engine(tmp_path / "fixed.onnx", tmp_path / "p", profiles=PROFILES, library=rtx)


def test_without_tensorrt_the_extra_is_named(graph: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed here")
    with pytest.raises(EngineError, match=r"pip install '\.\[trt\]'"):
        build_engine(graph, tmp_path / "p", profiles=PROFILES)
