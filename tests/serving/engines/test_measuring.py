"""Engines side by side: on which windows, and what of their answers is compared."""

import time

import numpy as np
import pytest

from data.errors import EngineError
from serving.analyzer import load_analyzer
from serving.engines import measuring
from serving.engines.choice import BASELINE, load_embedder, make_engine
from serving.engines.judging import judge
from serving.engines.measuring import measure_engines, sample_windows
from serving.engines.protocol import Engine, Outputs, TokenIds
from serving.engines.tuned import QualityBudget


class Louder:
    """Twice the logits of an engine: the same directions, other probabilities."""

    def __init__(self, inside: Engine):
        self.name, self.batch_invariant, self.computes_padding = "louder", True, True
        self._inside = inside

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        outputs = self._inside.run(input_ids, attention_mask)
        return {head: 2 * logits for head, logits in outputs.items()}


def test_a_classifiers_engine_of_another_scale_is_not_within_the_budget(torch_twin):
    def make(name: str) -> Engine:
        engine = make_engine(BASELINE, torch_twin)
        return engine if name == BASELINE else Louder(engine)

    model, names = load_analyzer(torch_twin, engine=BASELINE), [BASELINE, "torch-bf16"]
    sample = sample_windows(model, 20)
    _, louder = judge(
        measure_engines(names, make, sample, model.pad_id, spec=model.spec, rounds=1),
        QualityBudget(),
    )[1]
    assert (louder.cos_mean, louder.top10_overlap) == pytest.approx((1.0, 1.0))
    assert "probability_shift=" in louder.verdict


class Busy:
    """Computes for half a millisecond of CPU time."""

    name, batch_invariant, computes_padding = "busy", True, True

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        end = time.process_time() + 5e-4
        while time.process_time() < end:
            pass
        return {"embedding": np.ones((len(input_ids), 4), np.float32)}


def test_an_engine_on_a_cpu_has_all_cores_beside_one_on_a_gpu(monkeypatch):
    monkeypatch.setattr(measuring, "gpu_peak", measuring.host_peak)
    monkeypatch.setattr(measuring, "gpu_clock", time.process_time)
    monkeypatch.setattr(measuring.os, "sched_getaffinity", lambda _: set(range(16)))
    names = ["torch-fp32", "torch-cuda-fp16"]
    cpu, gpu = measure_engines(names, lambda name: Busy(), [[1, 2]] * 20, 0, rounds=20)
    assert cpu.tokens_per_s / gpu.tokens_per_s == pytest.approx(16, rel=0.3)


def test_made_up_windows_have_the_lengths_asked_for(small_model):
    model = load_embedder(small_model, engine=BASELINE)
    windows = sample_windows(model, 300)
    lengths = [len(window) for window in windows]
    assert max(lengths) <= model.spec.max_tokens
    assert min(lengths) >= 4
    assert 25 < np.mean(lengths) < 40  # of 39, cut at this model's 48
    assert len({window[0] for window in windows} | {window[-1] for window in windows}) == 2
    assert windows == sample_windows(model, 300)


def test_too_few_windows_are_refused():
    with pytest.raises(EngineError, match="3 windows are too few"):
        measure_engines([], pytest.fail, [[1]] * 3, 0)


def test_a_reference_that_is_not_there_is_an_error():
    with pytest.raises(EngineError, match=r"'gone', whose answers.*cannot be made here"):
        measure_engines([], pytest.fail, [[1]] * 20, 0, reference="gone")
