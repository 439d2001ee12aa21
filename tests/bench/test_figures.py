import json
import re

import pytest

from bench.figures import TARGETS, figures_of, shown
from bench.readme_table import BEGINS, ENDS, ROOT, SNAPSHOT, table, with_table
from bench.report import write_report
from serving.engines.choice import BASELINE

GOOD = {"cos_mean": 0.999, "cos_p1": 0.99, "cos_min": 0.9, "top10_overlap": 0.97}
BAD = GOOD | {"top10_overlap": 0.5}


def row(engine, plan, ratio):
    return {
        "engine": engine,
        "plan": plan,
        "tokens_per_s": 100.0 * ratio,
        "ratio": ratio,
        "int8_gemm_share": ratio / 20,
        "batches": 3,
        "batches_planned": 4,
    }


def library(who, name, seconds, quality, *, int8=True):
    return {
        "who": who, "name": name, "int8": int8, "quality": quality, "batch_size": [16, 32],
        "cpu_s": [seconds, seconds * 1.1], "wall_s": [seconds, seconds], "best_batch": 16,
        "last_cpu_s": [seconds * 0.5, seconds, seconds * 3],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    parts = {
        "engine_speeds": {
            "gemm": {"peaks": {"int8": 400.0}},
            "quality": {
                "torch-int8": GOOD,
                "openvino-int8": BAD,
                "torch-bf16": GOOD | {"cos_mean": 0.99995},
            },
            "rows": [
                row(BASELINE, "naive", 1.0),
                row(BASELINE, "sorted", 3.0),
                row("torch-fp32", "sorted", 3.5),
                row("torch-bf16", "sorted", 7.0),
                row("torch-int8", "naive", 20.0),
                row("torch-int8", "sorted", 11.0),
                row("openvino-int8", "sorted", 15.0),
            ],
        },
        "side_by_side": {
            "texts": 96,
            "rows": [
                library("sentence-transformers", "ONNX int8", 4.0, BAD),
                library("sentence-transformers", "OpenVINO int8", 3.0, GOOD),
                library("sentence-transformers", "torch bf16", 2.0, GOOD, int8=False),
                library("infinity", "torch bf16", 5.0, GOOD, int8=False),
                library("matjip", "torch-int8", 2.0, GOOD),
                library("matjip", "openvino-int8", 1.0, BAD),
            ],
        },
        "memory_model": {
            "onnxruntime-fp32": {"failure": "it keeps its memory"},
            "torch-int8": {
                "memory_p999_under": 0,
                "memory_median_error": 0.02,
                "fitted_on": 40,
                "held_out": 30,
                "max_batch_tokens": 512,
            },
            "onnxruntime-int8": {
                "memory_p999_under": 0,
                "memory_median_error": 0.04,
                "fitted_on": 40,
                "held_out": 30,
                "max_batch_tokens": 512,
            },
        },
        "gateway_load": {"failure": "the port was taken"},
    }
    for name, part in parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    return tmp_path


def test_every_figure_has_all_its_fields(folder):
    figures = figures_of(folder)
    assert list(figures) == list(TARGETS)
    for key, figure in figures.items():
        assert figure["least"] == TARGETS[key].least
        assert figure["aim"] == TARGETS[key].aim
        assert figure["conditions"] is not None


def test_speed_counts_only_within_the_quality_budget_and_planned(folder):
    figures = figures_of(folder)
    assert figures["int8_batching_x"]["value"] == 11.0
    assert figures["fp32_batching_x"]["value"] == 3.0
    assert figures["bf16_batching_x"]["value"] == 7.0
    assert figures["gemm_share"]["value"] == pytest.approx(11 / 20)


def test_libraries_are_compared_at_their_quality_or_better(folder):
    figures = figures_of(folder)
    assert figures["vs_sentence_transformers_x"]["value"] == pytest.approx(1.5)
    assert "OpenVINO int8" in figures["vs_sentence_transformers_x"]["conditions"]
    assert "of 32, its default: 1.65 ×" in figures["vs_sentence_transformers_x"]["conditions"]
    assert figures["vs_infinity_x"]["value"] == pytest.approx(2.5)


def test_what_failed_has_no_value_but_a_reason(folder):
    figures = figures_of(folder)
    assert figures["gateway_goodput_share"]["value"] is None
    assert "the port was taken" in figures["gateway_goodput_share"]["conditions"]
    assert figures["admission_share"]["value"] is None
    assert "left nothing" in figures["admission_share"]["conditions"]


def test_no_engine_in_the_budget_is_no_figure(folder):
    path = folder / "engine_speeds.json"
    part = json.loads(path.read_text())
    part["quality"]["torch-int8"] = BAD
    path.write_text(json.dumps(part))
    assert figures_of(folder)["int8_batching_x"]["value"] is None


def test_the_report_holds_tables_and_plots(folder):
    write_report(folder, figures_of(folder))
    text = (folder / "report.md").read_text()
    assert "| torch-int8 | sorted | 3 of 4 |" in text
    assert "sentence-transformers OpenVINO int8" in text
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 2
    assert (folder / "engines.svg").read_text().startswith("<?xml")


def test_the_worst_engine_speaks_for_the_memory_model(folder):
    figures = figures_of(folder)
    assert figures["memory_median_error"]["value"] == 0.04
    assert "40" in figures["memory_median_error"]["conditions"]
    assert "onnxruntime-int8, torch-int8" in figures["memory_median_error"]["conditions"]
    assert "onnxruntime-fp32" not in figures["memory_median_error"]["conditions"]


def test_memory_that_no_engine_could_be_fitted_to_is_no_figure(folder):
    path = folder / "memory_model.json"
    path.write_text(json.dumps({"torch-int8": {"failure": "it keeps its memory"}}))
    figure = figures_of(folder)["memory_median_error"]
    assert figure["value"] is None
    assert "it keeps its memory" in figure["conditions"]


def test_lower_is_better_where_it_is():
    assert TARGETS["padding_ratio"].reached(1.02)
    assert not TARGETS["padding_ratio"].reached(1.2)
    assert TARGETS["int8_batching_x"].reached(10.0)
    assert not TARGETS["int8_batching_x"].reached(9.9)
    assert shown("gemm_share", 0.5) == "50.0%"
    assert shown("gemm_share", None) == "–"


def test_the_table_is_written_between_its_markers(folder):
    figures = figures_of(folder)
    readme = f"# Title\n{BEGINS}\nold\n{ENDS}\nrest\n"
    written = with_table(readme, figures)
    assert written.startswith("# Title\n")
    assert written.endswith(f"{ENDS}\nrest\n")
    assert "old" not in written
    assert all(f"`{key}`" in written for key in TARGETS)
    assert with_table(written, figures) == written


def test_a_readme_without_markers_is_refused(folder):
    with pytest.raises(ValueError, match="has no"):
        with_table("# Title\n", figures_of(folder))


def test_readme_says_what_the_snapshot_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if BEGINS not in readme:
        pytest.skip("README has no block of figures")
    block = re.search(f"{re.escape(BEGINS)}\n(.*){re.escape(ENDS)}", readme, re.DOTALL)
    figures = json.loads(SNAPSHOT.read_text(encoding="utf-8"))["figures"]
    assert block is not None
    assert block[1] == table(figures)
