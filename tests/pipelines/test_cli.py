import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local import Home, load_run

ROOT = Path(__file__).resolve().parents[2]


def _cli(*arguments: str, var: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "MATJIP_VAR": str(var)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split(":")[0] for line in makefile.splitlines() if ":" in line and "##" in line]
    assert len(targets) > 20
    assert all(f"  {target} " in listed for target in targets if not target.startswith("\t"))


def test_steps_one_by_one_begin_a_run_and_go_on_in_it(tmp_path: Path) -> None:
    first = _cli("step", "ingest", var=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "snapshot: " in first.stdout
    second = _cli("step", "validate", var=tmp_path)
    assert second.returncode == 0, second.stderr
    run = load_run(Home(root=tmp_path), None)
    assert run is not None
    assert [step.name for step in run.steps] == ["ingest-labels", "validate-labels"]
    changed = _cli("step", "split", "--set", "seed=7", "--run", run.run_id, var=tmp_path)
    assert changed.returncode == 0, changed.stderr
    split = json.loads((tmp_path / "runs" / f"{run.run_id}.json").read_bytes())["steps"][-1]
    manifest = json.loads((Path(split["outputs"]["split"]["uri"]) / "manifest.json").read_bytes())
    assert manifest["facts"]["seed"] == 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["step", "gate"], "run `make evaluate` first"),
        (["step", "nothing"], "'nothing'"),
        (["step", "ingest", "--set", "colour=1"], "colour"),
        (["step", "ingest", "--run", "none-such"], "none-such"),
        (["demo", "--labels", "/no/such/file.json"], "/no/such/file.json"),
        (["demo", "--recipe", "gigantic"], "gigantic"),
        (["serve"], "make demo"),
        (["tune-engine"], "make embedding"),
        (["step", "train-embedding"], "make embedding"),
        (["step", "build-engine"], "make embedding"),
        (["compare"], "No such command"),
    ],
)
def test_what_is_wrong_is_told_in_one_message(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = _cli(*arguments, var=tmp_path)
    assert done.returncode != 0
    assert says in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_the_contract_is_written(tmp_path: Path) -> None:
    done = _cli("contract", "--out", str(tmp_path), var=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert {"Review.schema.json", "Prediction.schema.json", "label_studio.xml"} <= names
    assert "food:positive" in (tmp_path / "label_studio.xml").read_text(encoding="utf-8")
