"""A run of the language model's graph that is killed at any step and started again."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
killing: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("killed_runs.py"))))
GRAPH = killing.Graph(
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
    steps=(
        *killing.LABELS,
        "build-targets",
        "pretrain-llm",
        "train-llm",
        "merge-llm",
        "quantize-llm",
        "compare-llm",
        "evaluate-llm",
        "gate-llm",
        "register-llm",
        "deploy-llm",
    ),
    first=len(killing.LABELS),
    register=("register-llm", "matjip-language"),
)


def test_killed_at_every_step_and_started_again(tmp_path: Path) -> None:
    killing.kill_at_every_step(GRAPH, tmp_path)
