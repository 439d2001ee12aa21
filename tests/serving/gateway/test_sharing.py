"""Runners of one process: their cost models, and what becomes of one that does not warm up."""

import asyncio
import threading

import pytest

from data.errors import ArtifactError, EngineError
from serving.batching.costs import CostModel
from serving.engines.choice import BASELINE, load_embedder
from serving.engines.tune import tune_engine
from serving.engines.tuned import Chosen, engines_home
from serving.gateway.embedding_model import EmbeddingModel, TimedEngine
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.settings import ServingSettings
from serving.gateway.sharing import Shared


def start(model, chosen: Chosen | None = None) -> CostModel:
    """The costs that a runner begins with."""

    async def run() -> CostModel:
        shared = Shared(ServingSettings(), GatewayMetrics())
        runner = await shared.start_runner(model, name="m/1", chosen=chosen, warm_up="맛있어요")
        await shared.close([runner])
        return runner._costs

    return asyncio.run(run())


@pytest.fixture
def model(tiny_embeddings) -> EmbeddingModel:
    return EmbeddingModel(load_embedder(tiny_embeddings[0]))


def test_what_tuning_fitted_is_what_a_runner_begins_with(tiny_embeddings, tmp_path, monkeypatch):
    monkeypatch.setenv("MATJIP_VAR", str(tmp_path))
    folder = tiny_embeddings[0]
    tuned = tune_engine(folder, home=engines_home(), windows=20, rounds=1)
    served = load_embedder(folder)
    assert served.chosen.engine == tuned.engine
    assert start(EmbeddingModel(served), served.chosen).measured > 0
    for other in (load_embedder(folder, threads=2), load_embedder(folder, engine=BASELINE)):
        assert other.chosen.costs is None
        assert start(EmbeddingModel(other), other.chosen).measured == 0


def test_a_timed_engine_has_the_limits_of_the_one_it_times(model):
    inside = model.engine._engine
    inside.length_buckets, inside.max_rows = (8, 64), 32
    timed = TimedEngine(inside)
    assert (timed.length_buckets, timed.max_rows) == ((8, 64), 32)


def test_a_cost_model_that_cannot_be_read_is_named(model, tmp_path):
    (tmp_path / "costs.json").write_text("{")
    with pytest.raises(ArtifactError, match="calibrate"):
        start(model, Chosen(BASELINE, 1, tmp_path / "costs.json"))


def test_an_engine_of_a_device_whose_memory_nobody_watches_is_refused(model):
    with pytest.raises(EngineError, match=r"'tensorrt-fp16' computes on the gpu.*MATJIP_DEVICE=g"):
        start(model, Chosen("tensorrt-fp16", 1))


def test_a_model_that_does_not_answer_is_refused_and_leaves_no_thread(model, faulty):
    model.engine._engine = type(
        "Broken", (), {"run": lambda *_: (_ for _ in ()).throw(EngineError("broken"))}
    )()
    with pytest.raises(EngineError, match="broken"):
        start(model)
    left = [thread.name for thread in threading.enumerate() if "m/1" in thread.name]
    for thread in threading.enumerate():
        if "m/1" in thread.name:
            thread.join(5)
    assert not [thread for thread in threading.enumerate() if "m/1" in thread.name], left
