"""Tuning: all engines measured in one run, the fastest within the budget kept."""

import io
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import DistilBertConfig, DistilBertModel
from typer.testing import CliRunner

from data.errors import ArtifactError, EngineError
from data.manifest import write_manifest
from serving.batching.costs import CostModel
from serving.batching.shapes import shape_of
from serving.embedding_folder import EMBEDDING_KIND
from serving.embedding_folder import SPEC_NAME as EMBEDDING_SPEC
from serving.engines import tune
from serving.engines.choice import (
    BASELINE,
    ENGINES,
    engines_of,
    load_embedder,
    make_engine,
    unfit_engines,
)
from serving.engines.hardware import this_hardware
from serving.engines.protocol import Engine, Outputs, TokenIds
from serving.engines.tune import reference_engine, tune_engine
from serving.engines.tuned import (
    QualityBudget,
    choice_path,
    costs_path,
    engines_home,
    tuned_costs,
)
from serving.model_folder import read_spec, write_spec
from serving.sentence_encoder import SentenceEncoder, save_sentence_encoder


class Acting:
    """An engine around an engine: slower, off the mark, or broken after some batches."""

    def __init__(
        self, inside: Engine, *, work: int = 0, noise: float = 0.0, breaks_after: float = np.inf
    ):
        self.name = "acting"
        self.batch_invariant = True
        self.computes_padding = True
        self._inside, self._work, self._noise = inside, work, noise
        self._left = breaks_after

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        self._left -= 1
        if self._left < 0:
            raise EngineError("it broke")
        for _ in range(self._work):
            np.linalg.svd(np.ones((60, 60)))
        outputs = self._inside.run(input_ids, attention_mask)
        noise = self._noise * np.random.default_rng(0).normal(size=outputs["embedding"].shape)
        return {"embedding": (outputs["embedding"] + noise).astype(np.float32)}


@pytest.fixture
def acts(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, dict]], None]:
    """Puts acting engines in place of the folder's own."""

    def put(roles: dict[str, dict]) -> None:
        monkeypatch.setattr(tune, "engines_of", lambda folder: list(roles))
        monkeypatch.setattr(tune, "reference_engine", lambda folder: next(iter(roles)))
        monkeypatch.setattr(
            tune,
            "make_engine",
            lambda name, folder, threads: Acting(make_engine(BASELINE, folder), **roles[name]),
        )

    return put


def test_one_run_picks_by_measure_and_lists_what_breaks(small_model, tmp_path, acts):
    acts(
        {
            "torch-fp32": {"work": 8},
            "openvino-fp32": {"work": 2},
            "openvino-bf16": {"noise": 0.2},
            "torch-int8": {"breaks_after": 0},
            "openvino-int8": {"breaks_after": 80},
        }
    )
    chosen = tune_engine(small_model, home=tmp_path, windows=40, rounds=30, costs=False)
    assert chosen.engine == "openvino-fp32"
    assert chosen.reference == "torch-fp32"
    rows = {one.engine: one for one in chosen.measured}
    assert rows["openvino-fp32"].verdict == "picked"
    assert "× the speed of openvino-fp32" in rows["torch-fp32"].verdict
    assert "cos_mean=" in rows["openvino-bf16"].verdict
    assert rows["torch-int8"].error == rows["openvino-int8"].error == "EngineError: it broke"
    assert rows["openvino-int8"].tokens_per_s is None


def test_a_classifier_is_tuned_too(torch_twin, tmp_path):
    chosen = tune_engine(torch_twin, home=tmp_path, windows=20, rounds=1, costs=False)
    assert chosen.reference == "torch-fp32"
    able = {"torch-fp32", "torch-bf16", "torch-int8"}
    unfit = {one.engine: one.error for one in chosen.measured if one.engine not in able}
    assert able <= {one.engine for one in chosen.measured}
    assert unfit == unfit_engines(torch_twin)
    picked = next(one for one in chosen.measured if one.engine == chosen.engine)
    assert picked.verdict.startswith("picked")
    assert all(one.verdict for one in chosen.measured)
    assert picked.label_agreement >= 0.99
    assert 0 <= picked.probability_shift <= 0.01


def test_the_second_call_takes_the_choice(small_model, tmp_path, acts, monkeypatch):
    acts({"torch-fp32": {}, "openvino-fp32": {"work": 4}})
    first = tune_engine(small_model, home=tmp_path, windows=20, costs=False)
    monkeypatch.setattr(tune, "measure_engines", None)  # measuring would fail
    begun = time.process_time()
    assert tune_engine(small_model, home=tmp_path, windows=20, costs=False).engine == first.engine
    assert time.process_time() - begun < 1.0


def test_the_plain_engine_is_the_reference(tiny_models, torch_twin, tmp_path):
    folder = Path(shutil.copytree(tiny_models["champion"], tmp_path / "model"))
    write_spec(folder, read_spec(folder).model_copy(update={"format": "onnx-int8"}))
    (folder / "qdq.onnx").write_bytes(b"")
    assert engines_of(folder)[0] == "openvino-int8-static"
    assert reference_engine(folder) == "onnxruntime-int8"
    assert reference_engine(torch_twin) == "torch-fp32"


def test_an_architecture_that_is_not_computed_unpadded_is_tuned_on_its_plain_engine(
    small_model, tmp_path
):
    torch.manual_seed(0)
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=600)
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("tokenizer.json", EMBEDDING_SPEC):
        shutil.copy2(small_model / name, folder / name)
    save_sentence_encoder(SentenceEncoder(DistilBertModel(config)), folder / "source")
    write_manifest(folder, EMBEDDING_KIND, {})
    assert engines_of(folder) == []
    with pytest.raises(EngineError, match=r"'torch-bf16' cannot.*'distilbert'.*'torch-fp32-padded"):
        make_engine("torch-bf16", folder)
    chosen = tune_engine(folder, home=tmp_path, windows=20, rounds=1, costs=False)
    assert (chosen.reference, chosen.engine) == (BASELINE, BASELINE)
    reasons = {one.engine: one.error for one in chosen.measured}
    assert "not model type 'distilbert'" in reasons["torch-int8"]
    (folder / "graph.onnx").write_bytes(b"")
    assert reference_engine(folder) == BASELINE
    assert engines_of(folder)[0] == "openvino-fp32"


def test_a_reference_that_breaks_is_an_error(small_model, tmp_path, acts):
    acts({"torch-fp32": {"breaks_after": 0}, "openvino-fp32": {}})
    with pytest.raises(EngineError, match=r"'torch-fp32', whose answers.*it broke"):
        tune_engine(small_model, home=tmp_path, windows=20, costs=False)


def test_costs_that_are_missing_are_fitted_for_a_kept_choice(
    small_model, tmp_path, acts, monkeypatch
):
    acts({"torch-fp32": {}})
    tune_engine(small_model, home=tmp_path, windows=20, costs=False)
    fitted: list[str] = []
    monkeypatch.setattr(tune, "measure_engines", None)  # measuring would fail
    monkeypatch.setattr(tune, "_fit_costs", lambda folder, choice, *_: fitted.append(choice.engine))
    tune_engine(small_model, home=tmp_path, windows=20)
    assert fitted == ["torch-fp32"]


def test_costs_of_another_choice_are_never_kept_beside_a_new_one(
    small_model, tmp_path, acts, monkeypatch
):
    monkeypatch.setenv("MATJIP_VAR", str(tmp_path))
    acts({"torch-fp32": {}})
    first = tune_engine(small_model, home=engines_home(), windows=20, costs=False)
    path = choice_path(engines_home(), first.model_digest, first.hardware)
    costs_path(path).write_text("of the first choice", encoding="utf-8")
    assert tuned_costs(first.model_digest, first.engine, 1) == costs_path(path)
    acts({"openvino-fp32": {}})
    second = tune_engine(small_model, home=engines_home(), windows=20, again=True, costs=False)
    assert second.engine == "openvino-fp32"
    assert tuned_costs(second.model_digest, second.engine, 1) is None


@pytest.mark.parametrize(
    "fault",
    ["altered", "cut", "another budget", "asked", "another model", "threads", "another sample"],
)
def test_a_choice_that_does_not_hold_is_measured_anew(
    fault, small_model, tmp_path, acts, monkeypatch
):
    acts({"torch-fp32": {}})
    first = tune_engine(small_model, home=tmp_path, windows=20, costs=False)
    path = choice_path(tmp_path, first.model_digest, first.hardware)
    text = path.read_text(encoding="utf-8")
    given = {"budget": QualityBudget(), "again": fault == "asked", "windows": 20}
    if fault == "threads":
        given["threads"] = 2
    elif fault == "another sample":
        given["windows"] = 21
    if fault == "altered":
        changed = json.loads(text) | {"engine": "openvino-int8"}
        path.write_text(json.dumps(changed), encoding="utf-8")
    elif fault == "cut":
        path.write_text(text[: len(text) // 2], encoding="utf-8")
    elif fault == "another budget":
        given["budget"] = QualityBudget(cos_mean=0.9)
    elif fault == "another model":
        changed = first.model_copy(update={"model_digest": "1" * 64})
        tune.write_choice(path, changed)
    monkeypatch.setattr(tune, "judge", lambda measured, _: ("openvino-fp32", measured))
    second = tune_engine(small_model, home=tmp_path, costs=False, **given)
    assert second.engine == "openvino-fp32"
    assert second.model_digest == first.model_digest


def test_an_engine_that_came_later_is_measured_too(small_model, tmp_path, acts):
    acts({"torch-fp32": {"work": 8}})
    tune_engine(small_model, home=tmp_path, windows=20, costs=False)
    acts({"torch-fp32": {"work": 8}, "openvino-fp32": {}})
    console = Console(record=True, width=200, file=io.StringIO())
    second = tune_engine(small_model, home=tmp_path, windows=20, costs=False, console=console)
    assert second.engine == "openvino-fp32"
    assert "measured again: ['openvino-fp32'] can run here" in console.export_text()
    acts({"torch-fp32": {"work": 8}})
    console = Console(record=True, width=200, file=io.StringIO())
    third = tune_engine(small_model, home=tmp_path, windows=20, costs=False, console=console)
    assert third.engine == "torch-fp32"
    assert "'openvino-fp32', which was chosen, cannot run" in console.export_text()


def test_a_file_beside_the_seal_that_was_built_anew_is_measured_again(
    small_model, tmp_path, acts, monkeypatch
):
    folder = Path(shutil.copytree(small_model, tmp_path / "model"))
    plan = folder / "tensorrt" / "fp16.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"one")
    acts({"torch-fp32": {}, "tensorrt-fp16": {}})
    on_cpu = replace(ENGINES["tensorrt-fp16"], device="cpu")
    monkeypatch.setitem(ENGINES, "tensorrt-fp16", on_cpu)
    measured = []
    there = tune.measure_engines
    monkeypatch.setattr(
        tune, "measure_engines", lambda *a, **k: measured.append(a[0]) or there(*a, **k)
    )
    for contents in (b"one", b"one", b"two", b"two"):
        plan.write_bytes(contents)
        tune_engine(folder, home=tmp_path, windows=20, rounds=1, costs=False)
    assert measured == 2 * [["torch-fp32", "tensorrt-fp16"]]


def test_another_machine_measures_anew(small_model, tmp_path, acts, monkeypatch):
    acts({"torch-fp32": {}})
    tune_engine(small_model, home=tmp_path, windows=20, costs=False)
    other = this_hardware().model_copy(update={"cores": 96})
    monkeypatch.setattr(tune, "this_hardware", lambda: other)
    acts({"openvino-fp32": {}})
    assert tune_engine(small_model, home=tmp_path, windows=20, costs=False).engine == (
        "openvino-fp32"
    )
    assert len(list(tmp_path.glob("*.json"))) == 2


def test_an_altered_model_is_refused(small_model, tmp_path):
    folder = Path(shutil.copytree(small_model, tmp_path / "model"))
    (folder / "graph.onnx").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"graph\.onnx"):
        tune_engine(folder, home=tmp_path)


def test_the_command_shows_keeps_and_explains(small_model, tmp_path, monkeypatch):
    monkeypatch.setenv("MATJIP_VAR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"가각간 {'갇갈 ' * (n % 9)}" for n in range(30)), encoding="utf-8")
    done = CliRunner().invoke(
        tune.app, [str(small_model), "--texts", str(texts), "--rounds", "1", "--cos-mean", "0.9"]
    )
    assert done.exit_code == 0, done.output
    assert "picked" in done.output
    assert "× the speed of" in done.output
    (kept,) = [p for p in (tmp_path / "engines").glob("*.json") if ".costs" not in p.name]
    assert kept.name in done.output.replace("\n", "")
    assert CostModel.load(costs_path(kept)).seconds(shape_of([16] * 8)) > 0
    chosen = json.loads(kept.read_text(encoding="utf-8"))
    assert load_embedder(small_model).engine.name in {
        one["name"] for one in chosen["measured"] if one["engine"] == chosen["engine"]
    }


@pytest.mark.parametrize("engine", ["onnxruntime-fp32", "openvino-fp32"])
def test_the_memory_of_a_batch_is_fitted_though_an_engine_would_keep_it(
    engine, tiny_models, small_model, tmp_path
):
    folder = small_model if engine.startswith("openvino") else tiny_models["champion"]
    tune._fit_costs(folder, SimpleNamespace(engine=engine, threads=1), 48, tmp_path / "c.json")
    costs = CostModel.load(costs_path(tmp_path / "c.json"))
    one, many = (costs.bytes_likely(shape_of([48] * rows)) for rows in (1, 40))
    assert many > 4 * one
    assert many > 40 * 48 * 256


def test_a_fit_that_cannot_be_is_said_and_none_is_kept(small_model, tmp_path, acts, monkeypatch):
    def calibrate(request: object) -> object:
        raise EngineError("it keeps its memory")

    monkeypatch.setattr(tune, "calibrate", calibrate)
    acts({"torch-fp32": {}})
    console = Console(record=True, width=200, quiet=False, file=io.StringIO())
    chosen = tune_engine(small_model, home=tmp_path, windows=20, rounds=1, console=console)
    path = choice_path(tmp_path, chosen.model_digest, chosen.hardware)
    assert path.is_file()
    assert not costs_path(path).exists()
    assert "no cost model is kept" in console.export_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--cos-mean", "2"], "cos_mean"),
        (["--texts", "nowhere.txt"], "nowhere.txt"),
        (["--windows", "0"], "0 windows are too few to measure on; give at least 20"),
    ],
)
def test_what_is_wrongly_asked_is_said(small_model, tmp_path, monkeypatch, given, message):
    monkeypatch.setenv("MATJIP_VAR", str(tmp_path))
    done = CliRunner().invoke(tune.app, [str(small_model), *given])
    assert done.exit_code == 1
    assert message in done.output
