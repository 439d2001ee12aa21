import json
import os
import time

from bench.figures import TARGETS
from bench.run import BUDGET_S, DEFAULT_ENGINE, ENVIRONMENT, TURNS, Part, choices, run_part
from bench.source_models import ROOT


def test_every_part_has_a_file_that_a_figure_reads_or_the_report():
    names = [part.name for turn in TURNS for part in turn]
    assert len(set(names)) == len(names)
    assert {"engine_speeds", "side_by_side", "padding", "gateway_load"} <= set(names)
    assert {"memory_model", "admission"} <= set(names)
    assert len(TARGETS) == 12


def test_the_later_parts_use_the_engine_that_tuning_would_choose(tmp_path):
    def measured(engine, ratio, cos_mean, top10_overlap=0.96):
        quality = {"cos_mean": cos_mean, "cos_p1": 0.99, "top10_overlap": top10_overlap}
        return {"engine": engine, "plan": "sorted", "ratio": ratio}, quality

    rows, quality = {}, {}
    for engine, *figures in (
        ("openvino-int8-static", 11.1, 0.9983),
        ("torch-int8", 10.8, 0.9988),  # within 3%, and more exact
        ("openvino-int8", 9.8, 0.9990),  # more exact still, and too slow
        ("onnxruntime-int8", 11.0, 0.9999, 0.90),  # finds other neighbours
    ):
        rows[engine], quality[engine] = measured(engine, *figures)
    said = {"rows": list(rows.values()), "quality": quality}
    (tmp_path / "engine_speeds.json").write_text(json.dumps(said))

    found = choices(tmp_path)

    assert found["best"] == "torch-int8"
    assert found["own"] == "torch-int8,openvino-int8-static,openvino-int8"
    assert choices(tmp_path / "none")["best"] == DEFAULT_ENGINE


def test_a_part_that_fails_leaves_its_reason(tmp_path):
    said = run_part(
        Part("broken", 60.0, ("bench.readme_table", "/no/such/file")),
        tmp_path,
        ends=time.monotonic() + 60,
    )
    assert "exit status 1" in said
    failure = json.loads((tmp_path / "broken.json").read_text())["failure"]
    assert "/no/such/file" in failure


def test_a_part_that_takes_too_long_is_ended(tmp_path):
    said = run_part(Part("slow", 0.05, ("bench.corpus",)), tmp_path, ends=time.monotonic() + 60)
    assert "not done after" in said


def test_a_part_shows_how_far_it_is_and_keeps_all_that_it_says(tmp_path, monkeypatch):
    (tmp_path / "talking.py").write_text(
        "import sys\n"
        "from bench.progress import say\n"
        "print('noise of a library', file=sys.stderr)\n"
        "say('half')\n"
        "print('{\"value\": 1}')\n"
    )
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    shown = []
    part = Part("talks", 60.0, ("talking",))
    run_part(part, tmp_path, ends=time.monotonic() + 60, show=shown.append)
    assert [line.split(": ")[-1] for line in shown] == ["half"]
    assert "noise of a library" in (tmp_path / "talks.log").read_text()
    assert json.loads((tmp_path / "talks.json").read_text()) == {"value": 1}


def test_all_parts_fit_the_time_they_have_together():
    assert sum(max(part.seconds for part in turn) for turn in TURNS) <= BUDGET_S


def test_a_part_without_time_is_not_begun(tmp_path):
    said = run_part(Part("late", 60.0, ("bench.corpus",)), tmp_path, ends=time.monotonic())
    assert said == "no time was left for it"
    assert json.loads((tmp_path / "late.json").read_text()) == {"failure": said}
