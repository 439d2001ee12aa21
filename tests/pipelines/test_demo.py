import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, components

from data.manifest import read_manifest
from pipelines.demo import run_demo
from pipelines.local import Home, load_run, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.train_encoder import train_encoder
from serving.experiments.routes import Routes

pytestmark = pytest.mark.slow

DEPEND_ON_LABELS = {
    "ingest-labels",
    "validate-labels",
    "split-dataset",
    "train-sentiment",
    "export-onnx",
    "quantize-encoder",
    "evaluate-sentiment",
    "gate-model",
    "register-model",
    "deploy-challenger",
}


def _ran(summary: dict[str, Any]) -> set[str]:
    return {step["name"] for step in summary["steps"] if not step["cached"]}


def test_the_summary_has_what_is_promised(small_run: dict[str, Any]) -> None:
    summary = small_run["summary"]
    assert {
        "run_id",
        "evidence_id",
        "wall_s",
        "steps",
        "snapshot",
        "models",
        "gate",
        "verdict",
    } <= (summary.keys())
    assert {s["status"] for s in summary["steps"]} == {"succeeded"}
    snapshot = summary["snapshot"]
    assert snapshot["rows_in"] == snapshot["accepted"] + snapshot["quarantined"] == 420
    assert [m["format"] for m in summary["models"]] == ["onnx-fp32", "onnx-int8"]
    fp32, int8 = summary["models"]
    assert int8["parent"] == fp32["version"]
    assert int8["bytes"] < fp32["bytes"]  # most of so small an encoder is embeddings, kept in float
    for model in summary["models"]:
        assert model["parity"].keys() == {"max_abs_diff", "label_flips", "cos_mean", "cos_p1"}
        figure = model["metrics"]["three_class_macro_f1"]
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert summary["gate"]["verdict"] in {"pass", "fail", "inconclusive"}
    assert summary["gate"]["slices"]


def test_traffic_and_alias_follow_the_verdict(small_run: dict[str, Any]) -> None:
    summary = small_run["summary"]
    aliases = {m["alias"]: m["version"] for m in summary["models"] if m["alias"]}
    decision = summary["verdict"]["decision"]
    if summary["gate"]["verdict"] != "pass":
        assert decision == "skipped"
        assert aliases == {}
    elif decision == "promote":
        assert aliases["champion"] == summary["models"][1]["version"]
        assert "challenger" not in aliases
    else:
        assert aliases["champion"] == summary["models"][0]["version"]
    if decision != "skipped":
        verdict = summary["verdict"]
        assert sum(verdict["exposures"].values()) == sum(verdict["outcomes"].values()) == 1500
        assert verdict["low"] <= verdict["difference"] <= verdict["high"]
        with closing(Routes(small_run["home"].store_url)) as routes:
            served = routes.latest("sentiment")
            assert served is not None
            route = routes.now(served.deployment_id)
        arms = {"promote": "challenger", "roll_back": "champion"}
        assert (route and route.arm) == arms.get(decision)


def test_the_report_stands_alone(small_run: dict[str, Any]) -> None:
    page = (small_run["home"].root / "demo" / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 3
    assert "src=" not in page
    assert "not diners' reviews" in page.replace("&#39;", "'")
    written = json.loads((small_run["home"].root / "demo" / "summary.json").read_bytes())
    assert written["run_id"] == small_run["summary"]["run_id"]


def test_artifacts_are_whole(small_run: dict[str, Any]) -> None:
    run = load_run(small_run["home"], small_run["summary"]["run_id"])
    assert run is not None
    for step, output in (
        ("split-dataset", "split"),
        ("train-sentiment", "model"),
        ("quantize-encoder", "quantized"),
        ("gate-model", "gate"),
    ):
        assert read_manifest(run.artifact(step, output)).digest == run.step(step).outputs["Output"]


def test_the_compiled_file_runs_the_same(small_run: dict[str, Any], tmp_path: Path) -> None:
    home: Home = small_run["home"]
    run = load_run(home, small_run["summary"]["run_id"])
    assert run is not None
    path = tmp_path / "train-encoder.yaml"
    compiler.Compiler().compile(train_encoder(local_placement(source_digest())), str(path))
    compiled = components.load_component_from_file(str(path))
    again = run_graph(compiled, run.arguments, new_run(home, "compiled", run.arguments), home)
    # The cache compares component, image, command and arguments: a hit means that they are equal.
    # Steps that do not depend on one another may come in either order.
    assert {(s.name, s.status, s.cached) for s in again.steps} == {
        (s.name, s.status, True) for s in run.steps
    }
    assert {s.name: s.outputs for s in again.steps} == {s.name: s.outputs for s in run.steps}


def test_again_comes_from_the_cache_and_an_edit_runs_what_depends_on_it(
    small_run: dict[str, Any], tmp_path: Path
) -> None:
    home: Home = small_run["home"]
    again = run_demo(
        home,
        labels=str(small_run["labels"]),
        recipe=str(small_run["recipe"]),
        language_recipe=None,
        requests=1500,
    )
    assert _ran(again) == set()
    assert again["evidence_id"] == small_run["summary"]["evidence_id"]

    tasks = json.loads(small_run["labels"].read_bytes())
    for result in tasks[0]["annotations"][0]["result"]:
        if result["from_name"] == "emotions":
            result["value"]["choices"] = ["surprise"]
    small_run["labels"].write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    edited = run_demo(
        home,
        labels=str(small_run["labels"]),
        recipe=str(small_run["recipe"]),
        language_recipe=None,
        requests=1500,
    )
    after = {"replay-traffic", "compare-arms", "promote-model"}
    assert _ran(edited) - after == DEPEND_ON_LABELS
    assert edited["snapshot"]["id"] != again["snapshot"]["id"]


def test_one_step_of_a_finished_run(small_run: dict[str, Any]) -> None:
    home: Home = small_run["home"]
    run_id = small_run["summary"]["run_id"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "step", "gate", "--run", run_id],
        env=os.environ | {"MATJIP_VAR": str(home.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = load_run(home, run_id)
    assert run is not None
    first, again = (s.outputs["Output"] for s in run.steps if s.name == "gate-model")
    assert first == again
