"""How the embedding graph is started, a step of it repeated, and its end shown; no step is run."""

import io

import pytest
import yaml
from rich.console import Console

from data.errors import SettingsError
from pipelines.arguments import embedding_arguments
from pipelines.deployments import deployments_of
from pipelines.embedding import show_embedding
from pipelines.local import Home, RunRecord, StepRecord
from pipelines.make_targets import STEPS
from pipelines.placement import local_placement
from pipelines.steps import one_step
from pipelines.train_embedding import train_embedding
from training.evaluation.retrieval_settings import RetrievalSettings

GRAPH = train_embedding(local_placement("0"))
PARITY = {"cos_mean": 0.99991, "cos_p1": 0.9992, "cos_min": 0.9988, "top10_overlap": 0.971}
FIGURE = {"value": 0.8125, "low": 0.75, "high": 0.875, "n": 16}


def test_korsts_is_asked_where_the_folder_of_real_data_holds_it(tmp_path, monkeypatch):
    home = Home(root=tmp_path / "var")
    monkeypatch.delenv("MATJIP_REAL_DATA", raising=False)
    assert "evaluation_settings" not in embedding_arguments(home)
    monkeypatch.setenv("MATJIP_REAL_DATA", str(tmp_path))
    assert "evaluation_settings" not in embedding_arguments(home)
    (tmp_path / "korsts_dev.tsv.gz").touch()
    arguments = embedding_arguments(home)
    settings = RetrievalSettings.model_validate(yaml.safe_load(arguments["evaluation_settings"]))
    assert settings.korsts == str(tmp_path / "korsts_dev.tsv.gz")
    assert yaml.safe_load(arguments["recipe"])["name"] == "embedding-tiny"
    given = embedding_arguments(home, evaluation_settings="seed: 3")
    assert given["evaluation_settings"] == "seed: 3"


def test_a_file_that_was_written_anew_changes_what_the_cache_compares(tmp_path, monkeypatch):
    home, weights = Home(root=tmp_path / "var"), tmp_path / "model" / "weights.bin"
    monkeypatch.setenv("MATJIP_REAL_DATA", str(tmp_path))
    pairs, korsts = tmp_path / "pairs.tsv", tmp_path / "korsts_dev.tsv.gz"
    weights.parent.mkdir()
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        f"name: own\npretrained: {weights.parent}\ncontrastive: {{pairs_file: {pairs}}}\n",
        encoding="utf-8",
    )
    for path in (weights, pairs, korsts):
        path.write_text("old", encoding="utf-8")

    def digests():
        arguments = embedding_arguments(home, recipe=str(recipe))
        return arguments["recipe_files_digest"], arguments["evaluation_files_digest"]

    seen = [digests()]
    assert digests() == seen[0]
    for path in (weights, pairs, korsts):
        path.write_text("new", encoding="utf-8")
        seen.append(digests())
    made, measured = zip(*seen, strict=True)
    assert len(set(made[:3])) == 3
    assert made[3] == made[2]
    assert measured[0] == measured[1] == measured[2] != measured[3]
    named = embedding_arguments(home, recipe="ko-sroberta")["recipe_files_digest"]
    assert named == embedding_arguments(home, recipe="ko-sroberta")["recipe_files_digest"]
    tasks = GRAPH.pipeline_spec.root.dag.tasks
    for step in ("train-embedding", "evaluate-embedding"):
        assert "files_digest" in tasks[step].inputs.parameters


def test_wrong_evaluation_settings_are_told_before_anything_runs(tmp_path):
    with pytest.raises(SettingsError, match="colour"):
        embedding_arguments(Home(root=tmp_path), evaluation_settings="colour: 1")


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingsError, match="gigantic"):
        embedding_arguments(Home(root=tmp_path), recipe="gigantic")


def test_every_step_after_the_split_can_be_repeated_alone():
    own = {task for graphs, task in STEPS.values() if graphs == ("train-embedding",)}
    labelled = {"ingest-labels", "validate-labels", "split-dataset"}
    assert own | labelled == set(GRAPH.pipeline_spec.root.dag.tasks)


def _run(tmp_path, *steps: StepRecord) -> RunRecord:
    arguments = {"tracking_uri": "sqlite:///none.db", "models": str(tmp_path)}
    return RunRecord(
        run_id="r",
        graph="train-embedding",
        status="succeeded",
        arguments=arguments,
        steps=list(steps),
    )


def _step(name: str, **outputs) -> StepRecord:
    return StepRecord(name=name, status="succeeded", seconds=1.0, cached=False, outputs=outputs)


def test_an_earlier_version_is_named_by_its_number(tmp_path):
    registered = _step("register-embedding", registration={"uri": str(tmp_path)}, Output="digest")
    run = _run(tmp_path, registered)
    alone = one_step(GRAPH, "deploy-embedding", run, {"version": 2})
    tasks = alone.pipeline_spec.root.dag.tasks
    version = tasks["deploy-embedding"].inputs.parameters["version"]
    assert version.runtime_value.constant.string_value == "2"


def test_serving_a_run_takes_its_embedding_deployment(tmp_path):
    run = _run(tmp_path, _step("deploy-embedding", deployment={"uri": str(tmp_path)}))
    with pytest.raises(SettingsError, match="deployed nothing"):
        deployments_of(run)
    path = tmp_path / "embedding_deployment.json"
    path.touch()
    assert deployments_of(run) == {"--embedding-deployment": path}


def test_the_end_shows_every_format_every_figure_and_what_was_left_out():
    text = io.StringIO()
    show_embedding(
        Console(file=text, width=160),
        {
            "formats": {"model.onnx": {"bytes": 8_000_000, "parity": PARITY}},
            "tensorrt": {"model.onnx": {"status": "accepted"}},
            "left_out": {"int8.onnx": {"all": ["cos_mean=0.9 < 0.995"]}},
            "metrics": {"candidate": {"retyped_mrr": FIGURE}, "tfidf": {"retyped_mrr": FIGURE}},
            "engines": {"candidate": "onnxruntime-fp32"},
            "queries": "made as training's pairs are",
            "verdict": "pass",
            "reason": "as good as fp32",
            "registration": {"name": "matjip-embedding", "version": "4"},
        },
    )
    shown = text.getvalue()
    for part in ("model.onnx", "0.97100", "accepted", "retyped_mrr", "0.812", "onnxruntime-fp32"):
        assert part in shown
    assert "int8.onnx was left out" in shown
    assert "made as training's pairs are" in shown
    assert "matjip-embedding version 4" in shown
