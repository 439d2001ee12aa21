import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench.engines_gpu", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_why_and_ends_with_two():
    done = run()
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr
    assert "--toy" in done.stderr
    assert done.stdout == ""


def test_the_toy_goes_the_whole_way(tmp_path):
    done = run("--toy", "--out", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"] == "CPU, a toy"
    by_plan = {row["plan"]: row for row in found["rows"]}
    assert by_plan.keys() == {"by 32", "sorted"}
    assert 1.0 <= by_plan["sorted"]["padding"] < by_plan["by 32"]["padding"]
    for row in found["rows"]:
        assert row["tokens_per_s"] > 0
        assert row["roof_share"] > 0
