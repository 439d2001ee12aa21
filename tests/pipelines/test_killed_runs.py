"""A run that is killed at any step and started again ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.arguments import gold_labels
from pipelines.local import Home, RunRecord, load_run
from pipelines.make_targets import STEPS
from serving.registry.aliases import read_ledger
from serving.registry.connection import connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Graph:
    """One graph, made as small as it can be, and where it is killed.

    Attributes:
        name: of its module and function.
        recipe: a YAML text.
        given: arguments in place of the defaults.
        first: kills begin after so many steps; reading labels is killed in the encoder's run.
        register: the step that registers, and the registered model's name.
    """

    name: str
    recipe: str
    given: dict[str, str]
    first: int
    register: tuple[str, str]

    @property
    def steps(self) -> list[str]:
        """In the order in which they run."""
        of_labels = ["ingest-labels", "validate-labels", "split-dataset"]
        graph = self.name.replace("_", "-")
        mine = [step for graphs, step in STEPS.values() if graph in graphs]
        return [*of_labels, *(step for step in mine if step not in of_labels)]


ENCODER = Graph(
    name="train_encoder",
    recipe="""
name: least
threads: 1
encoder: {vocabulary: 5500, embedding_size: 32, hidden_size: 32, layers: 1, attention_heads: 2,
          intermediate_size: 64}
pretraining: {synthetic_reviews: 600, synthetic_epochs: 1}
fine_tuning: {epochs: 3, batch_tokens: 2048, learning_rate: 2.0e-3, save_every_steps: 5}
""",
    given={},
    first=0,
    register=("register-model", "matjip-sentiment"),
)
LANGUAGE = Graph(
    name="train_language",
    recipe="""
name: least
threads: 1
base: {vocabulary: 1500, hidden_size: 64, layers: 2, attention_heads: 2, key_value_heads: 1,
       head_size: 32, intermediate_size: 128, context_tokens: 2048}
pretraining: {clause_reviews: 100, synthetic_reviews: 300, synthetic_restaurants: 4, epochs: 1,
              batch_tokens: 2048}
lora: {rank: 8, alpha: 16}
tuning: {epochs: 0.5, batch_examples: 8, max_tokens: 2048, learning_rate: 1.0e-3,
         save_every_steps: 5}
quantization: {samples: 16}
""",
    given={
        # Half trained, the likeliest tokens are nearly ties; answers are short of sense, and few.
        "parity_settings": "{examples: 4, answers: 2, limits: {w8a8: {max_abs_diff: 1, "
        "top1_agreement: 0.8, kl_mean: 0.02, answer_agreement: 0, score_drop: 1}}}",
        "evaluation_settings": "{repeats: 1, free: 0, resamples: 200}",
    },
    first=3,
    register=("register-llm", "matjip-language"),
)
# Its gate lets nothing or everything through: this is about killing, not about quality.
DRIVER = """
import json, sys
from importlib import import_module
from pathlib import Path
from pipelines import arguments
from pipelines.local import Home, new_run, run_graph, source_digest
from pipelines.placement import local_placement
folder, name, given = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
home = Home(root=folder / "var")
if name == "train_language":
    given["summaries"] = str(arguments.gold_labels().with_name("summaries.json"))
make = getattr(arguments, name.removeprefix("train_") + "_arguments")
files = {"labels": str(folder / "export.json"), "recipe": str(folder / "recipe.yaml")}
arguments = make(home, **files, **given)
graph = getattr(import_module(f"pipelines.{name}"), name)
run = new_run(home, name.replace("_", "-"), arguments)
run_graph(graph(local_placement(source_digest())), arguments, run, home)
"""


def _start(folder: Path, graph: Graph) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", DRIVER, str(folder), graph.name, json.dumps(graph.given)]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def _finished(home: Home, run: RunRecord | None, known: str | None) -> list[str]:
    if run is None or run.run_id == known:
        return []
    return [step.name for step in run.steps if step.status == "succeeded"]


def _kill_during(folder: Path, graph: Graph, home: Home, number: int) -> None:
    """Start the run and kill its whole process group while step ``number`` is at work."""
    earlier = load_run(home, None)
    process = _start(folder, graph)
    deadline = time.monotonic() + 240
    try:
        while time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it could be killed"
            done = _finished(home, load_run(home, None), earlier.run_id if earlier else None)
            if len(done) >= number:
                break
            time.sleep(0.05)
        # Kills come at several moments of a step, from its first imports to its last writes.
        time.sleep(0.4 * (number % 4))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("graph", [ENCODER, LANGUAGE], ids=lambda graph: graph.name)
def test_killed_at_every_step_and_started_again(graph: Graph, tmp_path: Path) -> None:
    tasks = json.loads(gold_labels().read_bytes())[:300]
    (tmp_path / "export.json").write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(graph.recipe, encoding="utf-8")
    home = Home(root=tmp_path / "var")
    for number in range(graph.first, len(graph.steps)):
        _kill_during(tmp_path, graph, home, number)
    last = _start(tmp_path, graph)
    assert last.wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()[-2000:]
    run = load_run(home, None)
    assert run is not None
    assert run.status == "succeeded"
    assert {step.name for step in run.steps} == set(graph.steps)
    registry = connect(home.tracking_uri)
    step, model = graph.register
    folder = run.artifact(step, "registration")
    registration = json.loads((folder / "registration.json").read_bytes())
    found = registry.client.search_model_versions(f"name={model!r}")
    assert sorted(str(v.version) for v in found) == sorted(
        v["version"] for v in registration["versions"]
    ), "nothing is registered twice or by halves"
    moved = [e for e in read_ledger(registry, model) if e.phase == "moved"]
    assert len({(e.alias, e.to_version) for e in moved}) == len(moved)
