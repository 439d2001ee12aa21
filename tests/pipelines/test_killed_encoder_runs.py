"""A run of the encoder's graph that is killed at any step and started again."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
killing: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("killed_runs.py"))))
GRAPH = killing.Graph(
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
    steps=(
        *killing.LABELS,
        "pretrain-encoder",
        "train-sentiment",
        "export-onnx",
        "quantize-encoder",
        "evaluate-sentiment",
        "gate-model",
        "register-model",
        "deploy-challenger",
    ),
    first=0,
    register=("register-model", "matjip-sentiment"),
)


def test_killed_at_every_step_and_started_again(tmp_path: Path) -> None:
    killing.kill_at_every_step(GRAPH, tmp_path)
