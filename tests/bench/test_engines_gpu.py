import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import engines_gpu, gpu_contestants, gpu_memory, gpu_roofline, gpu_speed
from bench.corpus import draw_windows
from bench.gpu_contestants import REFERENCE, Contestant
from bench.gpu_model import Sizes, make_model, sizes_of
from serving.windows import pad

ROOT = Path(__file__).parents[2]
BASE = Sizes(layers=12, hidden=768, inner=3072, vocabulary=30_000)
PEAKS = {"tflops": {"fp32": 50.0, "fp16": 800.0, "bf16": 800.0}, "gb_per_s": 4000.0}


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench.engines_gpu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """What the whole suite leaves behind, and its exit status."""
    out = tmp_path_factory.mktemp("gpu")
    status = engines_gpu.main(["--toy", "--no-compile", "--rounds", "1", "--out", str(out)])
    return status, out, json.loads((out / "engines_gpu.json").read_text(encoding="utf-8"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_why_and_ends_with_two():
    done = run()
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA GPU" in done.stderr
    assert "--toy" in done.stderr
    assert done.stdout == ""


def test_the_toy_goes_the_whole_way(toy):
    status, out, found = toy
    assert status == 0
    assert found["failures"] == {}
    assert {*engines_gpu.PARTS} <= set(found)
    text = (out / "engines_gpu.md").read_text(encoding="utf-8")
    for title in ("What the GPU can do", "Engines × batch sizes", "Admission", "Out of memory"):
        assert f"## {title}" in text
    assert {path.name for path in out.iterdir()} == {
        "engines_gpu.json",
        "engines_gpu.md",
        "engines_gpu.svg",
        "engines_gpu_batch_sizes.svg",
    }


def test_every_engine_has_its_speed_its_share_and_its_quality(toy):
    _, _, found = toy
    part = found["engines"]
    assert part["failures"] == {}
    plans = 1 + len(engines_gpu.TOY_BUDGETS)
    names = [row["engine"] for row in part["rows"]]
    assert names[0] == REFERENCE
    assert {names.count(name) for name in names} == {plans}
    assert len(set(names)) == 7
    for row in part["rows"]:
        assert row["tokens_per_s"] > 0
        assert row["roofline_share"] > 0
        assert row["cos_p1"] > 0.999
        assert row["padding"] == 1.0 or "padded" in row["engine"]
    assert found["peaks"]["tflops"].keys() >= {"fp32", "fp16", "bf16"}


def test_admission_follows_what_another_process_takes(toy):
    admission = toy[2]["admission"]
    assert admission["held"]
    assert admission["limit_during"] < admission["limit_before"] - admission["taken_bytes"] * 0.9
    assert admission["limit_after"] > admission["limit_during"]
    assert admission["answered"] == admission["asked"] > 0


def test_every_text_is_answered_though_batches_run_out_of_memory(toy):
    short = toy[2]["out_of_memory"]
    assert short["out_of_memory"] > 0
    assert short["answered"] == short["asked"]
    assert short["cos_min"] > 0.999


def test_what_must_hold_and_does_not_is_a_failure():
    admission = {"asked": 9, "answered": 9, "shrink_s": 0.2, "grow_s": None}
    short = {"asked": 9, "answered": 8, "out_of_memory": 0, "cos_min": 0.5}
    assert set(engines_gpu.broken({"admission": admission, "out_of_memory": short})) == {
        "admission: grow_s",
        "out_of_memory: answers",
        "out_of_memory: answers alike",
        "out_of_memory: provoked",
    }
    assert engines_gpu.broken({}) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--windows", "47"], "48 windows or more"),
        (["--rounds", "0"], "at least once"),
        (["--only", "prices"], "invalid choice"),
    ],
)
def test_options_that_measure_nothing_are_refused(capsys, arguments, said):
    with pytest.raises(SystemExit) as refused:
        engines_gpu.parse_arguments(arguments)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_parts_are_run_by_name(tmp_path):
    status = engines_gpu.main(["--toy", "--only", "peaks", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "engines_gpu.json").read_text(encoding="utf-8"))
    assert status == 0
    assert set(found) == {"conditions", "failures", "peaks"}


def test_the_roofline_is_the_longer_of_two_times():
    # One short window: weights must be read. Many tokens: products are what counts.
    weights = 12 * (4 * 768**2 + 2 * 768 * 3072)
    one = gpu_roofline.roofline_s(BASE, [4], "fp16", PEAKS)
    assert one == pytest.approx(2 * weights / 4e12, rel=0.02)
    many = gpu_roofline.roofline_s(BASE, [100] * 1000, "fp16", PEAKS)
    assert many == pytest.approx(2 * weights * 100_000 / 800e12, rel=0.03)
    assert gpu_roofline.roofline_s(BASE, [100] * 1000, "fp32", PEAKS) > 15 * many


def test_sizes_are_read_from_the_weights():
    assert sizes_of(make_model(toy=True)) == Sizes(2, 32, 64, 500)


def test_fixed_shapes_hold_every_row_once():
    windows = draw_windows(300, 500)
    ids, mask = pad(windows, 0)
    parts = list(gpu_contestants.in_buckets(ids, mask))
    assert {part[0].shape for part in parts} == {(32, 128)}
    tokens = ids.shape[1]
    assert np.array_equal(np.concatenate([p[0][: p[2], :tokens] for p in parts]), ids)
    assert sum(rows for _, _, rows in parts) == 300
    assert all((part[1].sum(1) > 0).all() for part in parts)


def test_an_engine_that_fails_or_has_no_time_leaves_its_reason():
    def fails():
        raise torch.OutOfMemoryError("CUDA out of memory")

    windows = draw_windows(48, 500)

    def measured(ends):
        return gpu_speed.measure_speeds(
            {"broken": Contestant("fp16", fails)},
            windows,
            [256],
            BASE,
            PEAKS,
            rounds=1,
            ends=ends,
            say=lambda line: None,
        )

    assert "OutOfMemoryError" in measured(float("inf"))["failures"]["broken"]
    assert measured(0.0)["failures"]["broken"] == "no time was left for it"


def test_compiled_engines_answer_alike(monkeypatch):
    # Traced as ever, but not handed to a C++ compiler: that takes half a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model, device = make_model(toy=True), torch.device("cpu")
    batch = pad(draw_windows(48, 500)[:6], 0)
    found = gpu_contestants.contestants(model, device, folder=None, compiled=True)
    reference = found[REFERENCE].make().run(*batch)["embedding"]
    compiled = [name for name in found if "compiled" in name]
    assert len(compiled) == 3
    for name in compiled:
        answers = found[name].make().run(*batch)["embedding"]
        assert gpu_speed.quality_of(reference, answers)["cos_min"] > 0.999, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("part", ["admission", "out_of_memory"])
def test_a_gpus_memory_may_run_short(part, tmp_path):
    done = run("--only", part, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "engines_gpu.json").read_text(encoding="utf-8"))
    assert found[part]["answered"] == found[part]["asked"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_is_filled_but_for_what_is_to_be_left():
    memory = gpu_memory.GpuMemory()
    held = gpu_memory.fill(gpu_memory.LEFT_FREE, memory)
    try:
        assert memory().free < gpu_memory.LEFT_FREE + 64 * gpu_memory.MIB
    finally:
        held.clear()
        torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpus_engines_are_measured(tmp_path):
    done = run("--only", "engines", "--no-compile", "--windows", "512", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "engines_gpu.json").read_text(encoding="utf-8"))
    assert found["engines"]["failures"] == {}
    assert all(0 < row["roofline_share"] <= 1 for row in found["engines"]["rows"])
