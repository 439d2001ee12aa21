"""A small run of the whole way, made once: 260 gold reviews, an encoder of one layer."""

import json
import os
from typing import Any

import pytest

from pipelines.arguments import gold_labels
from pipelines.demo import run_demo
from pipelines.local import Home

MINI = """
name: mini
threads: 2
encoder: {vocabulary: 6000, embedding_size: 64, hidden_size: 64, layers: 1, attention_heads: 2,
          intermediate_size: 128}
pretraining: {synthetic_reviews: 3000, synthetic_epochs: 2, synthetic_learning_rate: 2.0e-3}
fine_tuning: {epochs: 8, batch_tokens: 1024, learning_rate: 2.0e-3}
"""
REVIEWS = 420


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where a whole demo ran, what went in, and what its summary says."""
    folder = tmp_path_factory.mktemp("demo")
    labels, recipe = folder / "export.json", folder / "mini.yaml"
    tasks = json.loads(gold_labels().read_bytes())
    labels.write_text(json.dumps(tasks[:REVIEWS], ensure_ascii=False), encoding="utf-8")
    recipe.write_text(MINI, encoding="utf-8")
    home = Home(root=folder / "var")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    summary = run_demo(
        home, labels=str(labels), recipe=str(recipe), language_recipe=None, requests=1500
    )
    return {"home": home, "labels": labels, "recipe": recipe, "summary": summary}
