import json
import subprocess
import sys
from pathlib import Path

import pytest

from data.errors import SettingsError
from data.manifest import write_manifest
from pipelines.arguments import engine_arguments
from pipelines.cli import STEPS, _run_for
from pipelines.cluster import GRAPHS
from pipelines.local import Home, RunRecord, StepRecord, load_run, new_run, save_run
from pipelines.placement import local_placement

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


def test_every_step_of_every_graph_has_a_target() -> None:
    tasks = {
        (name, task)
        for name, build in GRAPHS.items()
        for task in build(local_placement("0")).pipeline_spec.root.dag.tasks
        if not task.startswith("importer")
    }
    assert {(graph, task) for graphs, task in STEPS.values() for graph in graphs} <= tasks
    # Graphs share steps, so a name is enough; `make tune` is the tuning graphs' own target.
    assert {task for _, task in STEPS.values()} | {"tune-model"} == {task for _, task in tasks}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in STEPS:
        assert f"\n{target}: setup  ## " in makefile


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
        (["step", "gate"], "make evaluate-sentiment"),
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


def _record(home: Home, graph: str, stamp: str, *made: tuple[str, str]) -> RunRecord:
    """A run that has made an output in each of these steps, in sealed folders."""
    run = new_run(home, graph, {"tracking_uri": "none", "threads": 2})
    steps = []
    for step, output in made:
        folder = home.folder(f"kfp/{stamp}/{step}")
        write_manifest(folder, "test", {"stamp": stamp})
        outputs = {output: {"uri": str(folder)}}
        steps.append(
            StepRecord(name=step, status="succeeded", seconds=1.0, cached=False, outputs=outputs)
        )
    run = run.model_copy(update={"run_id": f"{graph}-{stamp}", "steps": steps})
    save_run(home, run)
    return run


def _embedding_run(home: Home, stamp: str) -> RunRecord:
    return _record(
        home,
        "train-embedding",
        stamp,
        ("quantize-embedding", "quantized"),
        ("split-dataset", "split"),
    )


def test_engines_are_built_for_the_run_that_is_named(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    older, newer = _embedding_run(home, "20260101-000000-000"), _embedding_run(home, "20260102-0")
    graphs = STEPS["build-engine"][0]
    named = _run_for(home, graphs, older.run_id)
    assert named.graph == "build-engine"
    assert named.arguments == engine_arguments(home, older)
    assert _run_for(home, graphs, None).arguments == engine_arguments(home, newer)
    classifier = _record(home, "train-encoder", "20260103-000000-000")
    with pytest.raises(SettingsError, match="made no embedding model"):
        _run_for(home, graphs, classifier.run_id)
    with pytest.raises(SettingsError, match="which has no such step"):
        _run_for(home, STEPS["quantize"][0], older.run_id)


def test_steps_that_graphs_share_go_on_in_the_classifiers_run(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    classifier = _record(home, "train-encoder", "20260101-000000-000")
    embedding = _embedding_run(home, "20260102-000000-000")
    for step in ("split", "train-sentiment"):
        assert _run_for(home, STEPS[step][0], None).run_id == classifier.run_id
    assert _run_for(home, STEPS["train-embedding"][0], None).run_id == embedding.run_id
    assert _run_for(home, STEPS["split"][0], embedding.run_id).run_id == embedding.run_id


def test_the_contract_is_written(tmp_path: Path) -> None:
    done = _cli("contract", "--out", str(tmp_path), var=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert {"Review.schema.json", "Prediction.schema.json", "label_studio.xml"} <= names
    assert "food:positive" in (tmp_path / "label_studio.xml").read_text(encoding="utf-8")
