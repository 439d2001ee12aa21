"""A run that is killed at any step and started again ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.arguments import gold_labels
from pipelines.local import Home, RunRecord, load_run
from serving.registry.aliases import read_ledger
from serving.registry.connection import connect

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = """
name: least
threads: 1
encoder: {vocabulary: 5500, embedding_size: 32, hidden_size: 32, layers: 1, attention_heads: 2,
          intermediate_size: 64}
pretraining: {synthetic_reviews: 600, synthetic_epochs: 1}
fine_tuning: {epochs: 3, batch_tokens: 2048, learning_rate: 2.0e-3, save_every_steps: 5}
"""
STEPS = (
    "ingest-labels",
    "validate-labels",
    "split-dataset",
    "pretrain-encoder",
    "train-sentiment",
    "export-onnx",
    "quantize-encoder",
    "evaluate-sentiment",
    "gate-model",
    "register-model",
    "deploy-challenger",
)
# Its gate lets everything through: this is about killing, not about quality.
DRIVER = """
import sys
from pathlib import Path
from pipelines.arguments import encoder_arguments
from pipelines.local import Home, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.train_encoder import train_encoder
home = Home(root=Path(sys.argv[1]))
arguments = encoder_arguments(home, labels=sys.argv[2], recipe=sys.argv[3])
run = new_run(home, "train-encoder", arguments)
run_graph(train_encoder(local_placement(source_digest())), arguments, run, home)
"""


def _start(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", DRIVER, str(folder / "var"), str(folder / "export.json")]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [*command, str(folder / "recipe.yaml")],
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )


def _finished(home: Home, run: RunRecord | None, known: str | None) -> list[str]:
    if run is None or run.run_id == known:
        return []
    return [step.name for step in run.steps if step.status == "succeeded"]


def _kill_during(folder: Path, home: Home, number: int) -> None:
    """Start the run and kill its whole process group while step ``number`` is at work."""
    earlier = load_run(home, None)
    process = _start(folder)
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


def test_killed_at_every_step_and_started_again(tmp_path: Path) -> None:
    tasks = json.loads(gold_labels().read_bytes())[:300]
    (tmp_path / "export.json").write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    home = Home(root=tmp_path / "var")
    for number in range(len(STEPS)):
        _kill_during(tmp_path, home, number)
    last = _start(tmp_path)
    assert last.wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()[-2000:]
    run = load_run(home, None)
    assert run is not None
    assert run.status == "succeeded"
    assert {step.name for step in run.steps} == set(STEPS)
    registry = connect(home.tracking_uri)
    folder = run.artifact("register-model", "registration")
    registration = json.loads((folder / "registration.json").read_bytes())
    found = registry.client.search_model_versions("name='matjip-sentiment'")
    assert sorted(str(v.version) for v in found) == sorted(
        v["version"] for v in registration["versions"]
    ), "nothing is registered twice or by halves"
    moved = [e for e in read_ledger(registry, "matjip-sentiment") if e.phase == "moved"]
    assert len({(e.alias, e.to_version) for e in moved}) == len(moved)
