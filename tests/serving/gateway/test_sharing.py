"""Runners of one process: their cost models, and what becomes of one that does not warm up."""

import asyncio
import threading
from pathlib import Path

import pytest

from data.errors import ArtifactError, EngineError
from serving.batching.costs import CostModel
from serving.engines.choice import load_embedder
from serving.gateway.embedding_model import EmbeddingModel
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.settings import ServingSettings
from serving.gateway.sharing import Shared, cost_file


def start(model, folder: Path, digest: str = "ab" * 32) -> None:
    async def run() -> None:
        shared = Shared(ServingSettings(costs_folder=str(folder)), GatewayMetrics())
        runner = await shared.start_runner(model, name="m/1", digest=digest, warm_up="맛있어요")
        await shared.close([runner])

    asyncio.run(run())


@pytest.fixture
def model(tiny_embeddings) -> EmbeddingModel:
    return EmbeddingModel(load_embedder(tiny_embeddings[0]))


def test_a_fitted_cost_model_is_taken_for_the_model_and_engine_it_was_fitted_on(
    model, tmp_path, monkeypatch
):
    loaded: list[Path] = []

    def load(path: Path) -> CostModel:
        loaded.append(path)
        return CostModel.unfitted()

    monkeypatch.setattr("serving.gateway.sharing.CostModel.load", load)
    right = cost_file(tmp_path, "ab" * 32, model.engine.name)
    CostModel.unfitted().save(right)
    start(model, tmp_path)
    start(model, tmp_path, digest="cd" * 32)
    assert loaded == [right]


def test_a_cost_model_that_cannot_be_read_is_named(model, tmp_path):
    cost_file(tmp_path, "ab" * 32, model.engine.name).write_text("{")
    with pytest.raises(ArtifactError, match="calibrate"):
        start(model, tmp_path)


def test_a_model_that_does_not_answer_is_refused_and_leaves_no_thread(model, tmp_path, faulty):
    model.engine._engine = type(
        "Broken", (), {"run": lambda *_: (_ for _ in ()).throw(EngineError("broken"))}
    )()
    with pytest.raises(EngineError, match="broken"):
        start(model, tmp_path)
    left = [thread.name for thread in threading.enumerate() if "m/1" in thread.name]
    for thread in threading.enumerate():
        if "m/1" in thread.name:
            thread.join(5)
    assert not [thread for thread in threading.enumerate() if "m/1" in thread.name], left
