"""The whole graph in containers gives what it gives without them."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount
from kfp import local

from data.manifest import read_manifest
from pipelines.arguments import encoder_arguments, gold_labels
from pipelines.local import Home, RunRecord, new_run, run_graph
from pipelines.placement import Placement, local_placement
from pipelines.train_encoder import train_encoder

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
RECIPE = """
name: least
threads: 1
encoder: {vocabulary: 5500, embedding_size: 32, hidden_size: 32, layers: 1, attention_heads: 2,
          intermediate_size: 64}
pretraining: {synthetic_reviews: 600, synthetic_epochs: 1}
fine_tuning: {epochs: 3, batch_tokens: 2048, learning_rate: 2.0e-3}
"""
DETERMINED = {
    "ingest-labels": "snapshot",
    "validate-labels": "validated",
    "split-dataset": "split",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunRecord]]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # Steps in containers are user 10001; what this process makes for them must be theirs too.
    before = os.umask(0)

    def go(name: str, placement: Placement, runner: Callable[[Home], Any] | None) -> RunRecord:
        home = Home(root=tmp_path / name)
        home.root.mkdir()
        labels, recipe = home.root / "export.json", home.root / "recipe.yaml"
        tasks = json.loads(gold_labels().read_bytes())[:300]
        labels.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
        recipe.write_text(RECIPE, encoding="utf-8")
        arguments = encoder_arguments(home, labels=str(labels), recipe=str(recipe), threads=1)
        record = new_run(home, "train-encoder", arguments)
        graph = train_encoder(placement)
        return run_graph(graph, arguments, record, home, runner=runner(home) if runner else None)

    yield go
    os.umask(before)


def test_containers_give_the_same_results(
    run: Callable[..., RunRecord],
    main_image: str,
    docker_runner: Callable[..., local.DockerRunner],
) -> None:
    def in_containers(home: Home) -> local.DockerRunner:
        place = str(home.root)
        mount = Mount(target=place, source=place, type="bind")
        return docker_runner(mounts=[mount], environment={"OMP_NUM_THREADS": "1"})

    plain = run("plain", local_placement("0"), None)
    contained = run("contained", Placement(images={"main": main_image}), in_containers)
    assert {(s.name, s.status) for s in contained.steps} == {
        (s.name, s.status) for s in plain.steps
    }
    for step, output in DETERMINED.items():
        first, second = (read_manifest(r.artifact(step, output)) for r in (plain, contained))
        assert first.files == second.files, step
    measured = [
        json.loads((r.artifact("evaluate-sentiment", "evaluation") / "metrics.json").read_bytes())
        for r in (plain, contained)
    ]
    for name in ("three_class_macro_f1", "intensity_mae", "aspect_macro_f1"):
        values = [m["metrics"]["candidate"][name]["value"] for m in measured]
        assert values[0] == pytest.approx(values[1], abs=0.02), name
    outputs = [{s.name: sorted(s.outputs) for s in r.steps} for r in (plain, contained)]
    assert outputs[0] == outputs[1]
