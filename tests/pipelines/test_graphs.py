from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from data.errors import SettingsError
from pipelines.cluster import GRAPHS, SubmitError, compile_graphs, documents, submit_graph
from pipelines.placement import local_placement, read_placement
from pipelines.real_data import train_and_report

ROOT = Path(__file__).resolve().parents[2]
PLACEMENT = ROOT / "pipelines" / "placement.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("compiled")
    return {path.stem: documents(path) for path in compile_graphs(PLACEMENT, out)}


def test_both_graphs_compile_to_strict_ir(compiled: dict[str, list[dict[str, Any]]]) -> None:
    assert compiled.keys() == GRAPHS.keys()
    for name, (ir, _) in compiled.items():
        spec = json_format.ParseDict(ir, pipeline_spec_pb2.PipelineSpec())
        assert spec.pipeline_info.name == name
        assert spec.root.dag.tasks


def test_every_step_runs_in_the_pinned_image(compiled: dict[str, list[dict[str, Any]]]) -> None:
    pinned = read_placement(PLACEMENT).images["main"]
    assert "@sha256:" in pinned
    for ir, _ in compiled.values():
        images = {
            executor["container"]["image"]
            for executor in ir["deploymentSpec"]["executors"].values()
            if "container" in executor
        }
        assert images == {pinned}


def test_gpu_nodes_volumes_and_secrets_are_set(compiled: dict[str, list[dict[str, Any]]]) -> None:
    ir, platform = compiled["train-and-deploy"]
    executors = ir["deploymentSpec"]["executors"]
    accelerator = executors["exec-train-sentiment"]["container"]["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"
    assert "accelerator" not in executors["exec-gate-model"]["container"]["resources"]
    kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    train = kubernetes["exec-train-sentiment"]
    assert train["nodeSelector"]["labels"] == {"nvidia.com/gpu.present": "true"}
    assert train["pvcMount"][0]["mountPath"] == "/matjip"
    for step in (
        "register-model",
        "evaluate-sentiment",
        "evaluate-llm",
        "register-llm",
        "deploy-llm",
    ):
        assert "secretAsEnv" in kubernetes[f"exec-{step}"], step


def test_engines_of_one_gpu_are_not_taken_from_the_cache_for_another(
    compiled: dict[str, list[dict[str, Any]]],
) -> None:
    cached = {
        name: task["cachingOptions"].get("enableCache", False)
        for graph in ("build-engine", "train-embedding")
        for name, task in compiled[graph][0]["root"]["dag"]["tasks"].items()
    }
    assert not cached["build-engine"]
    assert cached["train-embedding"]


def test_digests_travel_as_parameters(compiled: dict[str, list[dict[str, Any]]]) -> None:
    tasks = compiled["train-and-deploy"][0]["root"]["dag"]["tasks"]
    for name, task in tasks.items():
        if task.get("inputs", {}).get("artifacts"):
            producers = {
                a["taskOutputArtifact"]["producerTask"]
                for a in task["inputs"]["artifacts"].values()
            }
            digests = {
                p["taskOutputParameter"]["producerTask"]
                for p in task["inputs"]["parameters"].values()
                if "taskOutputParameter" in p
            }
            # Each input's digest arrives itself or through a step that had it as its own input.
            assert digests, name
            assert digests <= producers | set(tasks)


def test_the_real_data_graph_compiles() -> None:
    graph = train_and_report(local_placement("0"), "film-stars", corpus_from_split=True)
    assert {"ingest-labels", "ingest-labels-2", "evaluate-held-out"} <= set(
        graph.pipeline_spec.root.dag.tasks
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": {"train_sentimant": {}}}, "train_sentimant"),
        ({"steps": {"gate_model": {"gpus": 1}}}, "gpus"),
        ({"images": {"other": "x"}}, "no 'main'"),
    ],
)
def test_a_wrong_placement_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    values = yaml.safe_load(PLACEMENT.read_text(encoding="utf-8")) | change
    path = tmp_path / "placement.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(SettingsError, match=says):
        compile_graphs(path, tmp_path / "out")


def test_submitting_needs_a_host_and_labels() -> None:
    with pytest.raises(SettingsError, match="HOST"):
        submit_graph("", PLACEMENT, recipe="tiny", language_recipe="language-tiny", given={})
    with pytest.raises(SettingsError, match="labels_digest"):
        submit_graph(
            "http://127.0.0.1:9",
            PLACEMENT,
            recipe="tiny",
            language_recipe="language-tiny",
            given={},
        )


def test_a_server_that_is_not_there_is_told() -> None:
    given = {"labels": "x", "labels_digest": "0"}
    with pytest.raises(SubmitError, match=r"127\.0\.0\.1"):
        submit_graph(
            "http://127.0.0.1:9",
            PLACEMENT,
            recipe="tiny",
            language_recipe="language-tiny",
            given=given,
        )
