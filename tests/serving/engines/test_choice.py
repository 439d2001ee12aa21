"""Engines by name: what a folder can run on, what is refused, what is tuned."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.errors import ArtifactError, EngineError
from data.manifest import read_manifest, write_manifest
from serving.analyzer import load_analyzer
from serving.engines import choice
from serving.engines.choice import (
    BASELINE,
    ENGINES,
    engines_of,
    load_embedder,
    make_engine,
    plain_engine,
)
from serving.engines.hardware import this_hardware
from serving.engines.tuned import (
    EngineChoice,
    QualityBudget,
    choice_path,
    costs_path,
    write_choice,
)
from serving.model_folder import MODEL_KIND, read_spec, write_spec

TEXTS = ["가까", "각 갇 갈 감", "갚 갛 개 갬 거 걱 건", ""]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of choices."""
    monkeypatch.setenv("MATJIP_VAR", str(tmp_path / "var"))
    return tmp_path / "var" / "engines"


def choose(home: Path, folder: Path, engine: str) -> Path:
    hardware, digest = this_hardware(), read_manifest(folder).digest
    path = choice_path(home, digest, hardware)
    write_choice(
        path,
        EngineChoice(
            model_digest=digest,
            hardware=hardware,
            budget=QualityBudget(),
            reference="torch-fp32",
            engine=engine,
            windows=20,
            tokens=400,
            sample_digest="0" * 64,
            threads=1,
            candidates={engine: ""},
            measured=(),
        ),
    )
    return path


def test_an_embedding_folder_runs_on_what_its_files_allow(small_model, tmp_path):
    assert engines_of(small_model) == [
        "torch-fp32",
        "openvino-fp32",
        "torch-bf16",
        "openvino-bf16",
        "torch-int8",
        "openvino-int8",
        "openvino-int8-rows",
    ]
    unexported = Path(shutil.copytree(small_model, tmp_path / "model"))
    (unexported / "graph.onnx").unlink()
    assert engines_of(unexported) == ["torch-fp32", "torch-bf16", "torch-int8"]


def test_a_classifiers_format_decides(tiny_models, torch_twin, tmp_path):
    assert engines_of(torch_twin) == ["torch-fp32", "torch-bf16", "torch-int8"]
    assert engines_of(tiny_models["champion"]) == ["onnxruntime-fp32"]
    folder = Path(shutil.copytree(tiny_models["champion"], tmp_path / "model"))
    (folder / "tensorrt.onnx").write_bytes(b"")
    assert engines_of(folder) == [
        "onnxruntime-fp32",
        "openvino-fp32",
        "openvino-bf16",
        "openvino-int8",
        "openvino-int8-rows",
    ]
    write_spec(folder, read_spec(folder).model_copy(update={"format": "onnx-int8"}))
    (folder / "qdq.onnx").write_bytes(b"")
    assert engines_of(folder) == ["openvino-int8-static", "onnxruntime-int8"]


def test_what_nobody_tuned_runs_plainly(small_model, tiny_models, torch_twin, home):
    assert plain_engine(small_model) == BASELINE
    assert plain_engine(torch_twin) == BASELINE
    assert plain_engine(tiny_models["champion"]) == "onnxruntime-fp32"
    assert load_analyzer(torch_twin).engine.name.startswith("torch-")
    assert load_analyzer(tiny_models["champion"]).engine.name.startswith("onnxruntime-")


@pytest.mark.parametrize("name", ["torch-fp32", "openvino-fp32"])
def test_every_exact_engine_answers_alike(small_model, name):
    expected = load_embedder(small_model, engine=BASELINE).embed(TEXTS)
    found = load_embedder(small_model, engine=name).embed(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_an_engines_name_tells_its_precision_and_variant(tiny_models, small_model):
    assert make_engine("onnxruntime-fp32", tiny_models["champion"]).name.endswith("-fp32")
    for name in ("openvino-fp32", "openvino-int8", "openvino-int8-rows"):
        assert make_engine(name, small_model).name.endswith(name.removeprefix("openvino-"))


def test_the_tuned_engine_answers(small_model, home):
    choose(home, small_model, "openvino-fp32")
    assert load_embedder(small_model).engine.name.startswith("openvino-")
    assert load_embedder(small_model, engine=BASELINE).engine.name.startswith("torch-")
    assert load_embedder(small_model, engine="plain").engine.name.startswith("torch-")


def test_a_choice_that_was_altered_or_is_gone_is_not_taken(small_model, home, caplog):
    path = choose(home, small_model, "openvino-fp32")
    path.write_text(path.read_text("utf-8").replace("openvino-fp32", "openvino-bf16"), "utf-8")
    altered = load_embedder(small_model)
    assert altered.engine.name.startswith("torch-")
    assert "was altered" in altered.chosen.warning
    assert altered.chosen.warning in caplog.text
    choose(home, small_model, "an engine of an older version")
    gone = load_embedder(small_model)
    assert gone.engine.name.startswith("torch-")
    assert "no such engine" in gone.chosen.warning
    path.rename(path.with_name(path.name.replace(this_hardware().key, "0" * 16)))
    assert "other hardware" in load_embedder(small_model).chosen.warning
    assert load_embedder(small_model, engine=BASELINE).chosen.warning is None


def test_costs_that_are_left_of_a_deleted_choice_are_no_choice(small_model, home):
    path = choose(home, small_model, "openvino-fp32")
    costs_path(path).write_text("{}", "utf-8")
    path.unlink()
    served = load_embedder(small_model)
    assert served.engine.name.startswith("torch-")
    assert served.chosen.warning is None
    assert served.chosen.costs is None


def test_a_folder_that_nobody_tuned_needs_no_torch(tiny_models, home):
    code = (
        "import sys; from pathlib import Path; from serving.analyzer import load_analyzer; "
        f"made = load_analyzer(Path({str(tiny_models['champion'])!r})); "
        "assert made.chosen.warning is None; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_model_has_another_choice(tiny_models, small_model, home):
    path = choose(home, tiny_models["champion"], "openvino-fp32")
    choose(home, tiny_models["challenger"], "onnxruntime-fp32")
    assert len(list(home.iterdir())) == 2
    assert load_analyzer(tiny_models["champion"]).engine.name.startswith("onnxruntime-")
    assert path.is_file()


def test_an_unknown_engine_is_refused(small_model):
    with pytest.raises(EngineError, match=r"no engine 'openvino'; the engines are \['torch-fp32-p"):
        make_engine("openvino", small_model)


def test_a_missing_file_is_named(small_model, tiny_models):
    with pytest.raises(
        EngineError, match=r"'onnxruntime-fp32' cannot serve .*lacks 'model\.onnx'; export.*torch-b"
    ):
        make_engine("onnxruntime-fp32", small_model)
    with pytest.raises(EngineError, match="is of a format without 'torch' files"):
        make_engine("torch-bf16", tiny_models["champion"])


def test_a_missing_library_hides_its_engines_and_is_named(small_model, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        choice.importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "openvino" else there(name, package),
    )
    assert engines_of(small_model) == ["torch-fp32", "torch-bf16", "torch-int8"]
    with pytest.raises(EngineError, match=r"'openvino-bf16' needs 'openvino'.*`make setup`"):
        make_engine("openvino-bf16", small_model)


def test_no_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"neither model_spec\.json nor embedding_spec\.json"):
        engines_of(tmp_path)


def test_an_altered_graph_is_not_served(small_model, tmp_path):
    folder = Path(shutil.copytree(small_model, tmp_path / "model"))
    with (folder / "graph.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ArtifactError, match=r"graph\.onnx.*altered"):
        load_embedder(folder, engine="openvino-fp32")
    write_manifest(folder, MODEL_KIND, {})
    with pytest.raises(ArtifactError, match="'sentiment_model', expected 'embedding_model'"):
        load_embedder(folder)


def test_the_machine_decides_where_a_choice_is_kept(tmp_path):
    here = this_hardware()
    assert here.cores >= 1
    assert here.cpu
    assert {"torch", "onnxruntime", "openvino"} <= set(here.libraries)
    digest = "0" * 64
    others = [
        here.model_copy(update={"cpu": "another"}),
        here.model_copy(update={"flags": (*here.flags, "amx_int8")}),
        here.model_copy(update={"cores": here.cores + 1}),
        here.model_copy(update={"gpu": "NVIDIA H100, SM 9.0, driver 1"}),
        here.model_copy(update={"libraries": here.libraries | {"openvino": "0"}}),
    ]
    paths = {choice_path(tmp_path, digest, hardware) for hardware in (here, *others)}
    assert len(paths) == len(others) + 1
    assert choice_path(tmp_path, digest, this_hardware()) in paths


def test_exact_engines_come_first():
    names = list(ENGINES)
    order = ["fp32" in name for name in names]
    assert order == sorted(order, reverse=True)
