"""The table of formats."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from data.errors import LeakageError
from data.manifest import write_manifest
from serving.language_folder import read_language_model
from training.llm_formats import compare_formats
from training.stored_weights import weight_bytes

BENCH = Path(__file__).parents[2] / "bench" / "llm_formats.py"


@pytest.fixture(scope="module")
def rows_and_folder(tiny_merged, language_targets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    return compare_formats(
        tiny_merged, language_targets, None, folder, examples=3, samples=8
    ), folder


def test_every_format_stands_beside_its_parent(rows_and_folder, tiny_merged):
    rows, folder = rows_and_folder
    assert [row.format for row in rows] == ["float32", "w8a8", "fp8", "w4a16"]
    parent, *others = rows
    assert (parent.size, parent.top1_agreement) == (1.0, 1.0)
    assert parent.kl_mean == pytest.approx(0, abs=1e-6)
    assert parent.bytes == weight_bytes(tiny_merged)
    for row in others:
        assert row.bytes == weight_bytes(folder / row.format) < parent.bytes
        assert row.size == row.bytes / parent.bytes
        assert row.kl_mean > 0
        assert row.speed > 0
        assert read_language_model(folder / row.format).facts["format"] == row.format


def test_eight_bits_are_nearer_than_four(rows_and_folder):
    by_format = {row.format: row for row in rows_and_folder[0]}
    assert by_format["w8a8"].kl_mean < by_format["w4a16"].kl_mean
    assert by_format["w4a16"].bytes < by_format["w8a8"].bytes


def test_the_bench_prints_a_row_a_format(rows_and_folder):
    spec = importlib.util.spec_from_file_location("llm_formats_bench", BENCH)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    lines = bench.table(rows_and_folder[0]).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| float32 | 0.")
    assert "100.00%" in lines[2]


def test_held_out_texts_never_calibrate(tiny_merged, language_targets, tmp_path):
    targets = Path(shutil.copytree(language_targets, tmp_path / "targets"))
    shutil.copyfile(targets / "test.jsonl", targets / "train.jsonl")
    facts = json.loads((targets / "manifest.json").read_text(encoding="utf-8"))["facts"]
    write_manifest(targets, "targets", facts)
    with pytest.raises(LeakageError, match="test part"):
        compare_formats(tiny_merged, targets, None, tmp_path / "out", recipes=["w8a8"], samples=8)
