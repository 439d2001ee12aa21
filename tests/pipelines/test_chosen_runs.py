from pathlib import Path

import pytest

from data.errors import SettingsError
from data.manifest import write_manifest
from pipelines.arguments import engine_arguments
from pipelines.chosen_runs import deployments_for, run_for
from pipelines.deployments import EMBEDDING
from pipelines.local import Home, RunRecord, StepRecord, new_run, save_run
from pipelines.make_targets import STEPS
from serving.embedding_deployment import EMBEDDING_DEPLOYMENT_NAME


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
    named = run_for(home, graphs, older.run_id)
    assert named.graph == "build-engine"
    assert named.arguments == engine_arguments(home, older)
    assert run_for(home, graphs, None).arguments == engine_arguments(home, newer)
    classifier = _record(home, "train-encoder", "20260103-000000-000")
    with pytest.raises(SettingsError, match="made no embedding model"):
        run_for(home, graphs, classifier.run_id)
    with pytest.raises(SettingsError, match="which has no such step"):
        run_for(home, STEPS["quantize"][0], older.run_id)


def test_steps_that_graphs_share_go_on_in_the_classifiers_run(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    classifier = _record(home, "train-encoder", "20260101-000000-000")
    embedding = _embedding_run(home, "20260102-000000-000")
    for step in ("split", "train-sentiment"):
        assert run_for(home, STEPS[step][0], None).run_id == classifier.run_id
    assert run_for(home, STEPS["train-embedding"][0], None).run_id == embedding.run_id
    assert run_for(home, STEPS["split"][0], embedding.run_id).run_id == embedding.run_id


def test_a_named_run_is_served_and_else_the_last_of_each_kind(tmp_path: Path) -> None:
    home = Home(root=tmp_path)
    deployed = ("deploy-embedding", "deployment")
    runs = [
        _record(home, "train-embedding", f"2026010{day}-000000-000", deployed) for day in (1, 2)
    ]
    files = [run.artifact(*deployed) / EMBEDDING_DEPLOYMENT_NAME for run in runs]
    for file in files:
        file.touch()
    assert deployments_for(home, None) == {EMBEDDING: files[1]}
    assert deployments_for(home, runs[0].run_id) == {EMBEDDING: files[0]}
    with pytest.raises(SettingsError, match="no run 'none-such'"):
        deployments_for(home, "none-such")
