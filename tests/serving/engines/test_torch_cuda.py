"""The GPU's engine answers like its source, on the CPU and on a GPU where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DistilBertConfig,
    DistilBertModel,
)

from data.errors import EngineError, EngineMemoryError
from serving.encoder import load_encoder
from serving.engines.half_encoder import HalfPrecision, varlen_works
from serving.engines.pytorch import PytorchEngine
from serving.engines.torch_cuda import TorchCudaEngine
from serving.sentence_encoder import SentenceEncoder
from serving.windows import pad

FARTHEST: dict[HalfPrecision, float] = {"fp16": 1e-4, "bf16": 2e-3}
PRECISIONS: list[HalfPrecision] = list(FARTHEST)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["electra", "bert-relu", "roberta"])
def test_vectors_are_the_source_models(
    encoders: Any, kind: str, precision: HalfPrecision, device: str
) -> None:
    model = encoders.encoder(kind)
    ids, mask = pad(encoders.windows([1, 2, 7, 46, 7, 19, 31, encoders.max_tokens]), 1)
    source = PytorchEngine(model).run(ids, mask)["embedding"]
    engine = TorchCudaEngine(model, precision=precision, device=device)

    for _ in range(3):  # by itself, while it is recorded, and replayed
        ours = engine.run(ids, mask)["embedding"]
        assert ours.dtype == np.float32
        assert encoders.lowest_cosine(ours, source) > 1 - FARTHEST[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_head_of_a_classifier_answers_alike(
    torch_twin: Path, precision: HalfPrecision, device: str
) -> None:
    model = load_encoder(torch_twin)
    rng = np.random.default_rng(1)
    ids, mask = pad([rng.integers(5, 17, size=length).tolist() for length in (3, 9, 4, 32)], 0)
    source = PytorchEngine(model).run(ids, mask)

    ours = TorchCudaEngine(model, precision=precision, device=device).run(ids, mask)

    assert list(ours) == list(source)
    near = {"fp16": 0.005, "bf16": 0.03}[precision]
    for name, values in source.items():
        assert np.abs(ours[name] - values).max() <= near * max(1.0, np.abs(values).max()), name


def test_an_answer_does_not_depend_on_its_batch_mates(encoders: Any, device: str) -> None:
    engine = TorchCudaEngine(encoders.encoder(), precision="fp16", device=device)
    assert engine.batch_invariant
    assert encoders.moved_by_mates(engine) < 4e-3


def test_running_out_of_memory_has_its_own_error_and_passes(encoders: Any, device: str) -> None:
    engine = TorchCudaEngine(encoders.greedy(), precision="fp16", device=device)

    for _ in range(3):
        with pytest.raises(EngineMemoryError, match=r"shape \(2, 4\).*smaller batches"):
            engine.run(*pad(encoders.windows([4, 3]), 0))
        assert engine.run(*pad(encoders.windows([4]), 0))["embedding"].shape == (1, 4)


def test_the_backbone_is_not_copied_twice(encoders: Any) -> None:
    model = encoders.encoder()
    engine = TorchCudaEngine(model, precision="bf16", device="cpu")
    assert not list(engine._encoder._rest.backbone.parameters())
    assert list(model.backbone.parameters())


def test_bad_batches_are_refused_by_name(encoders: Any) -> None:
    engine = TorchCudaEngine(encoders.encoder("roberta"), precision="fp16", device="cpu")
    ids, mask = pad(encoders.windows([4, 3]), 1)
    with pytest.raises(EngineError, match="row 1 of the batch"):
        engine.run(ids, mask * np.array([[1], [0]]))
    with pytest.raises(EngineError, match=f"{encoders.max_tokens + 1} tokens.*lower max_tokens"):
        engine.run(*pad(encoders.windows([encoders.max_tokens + 1]), 1))
    for wrong in (encoders.vocabulary, -1):
        changed = ids.copy()
        changed[1, 0] = wrong
        with pytest.raises(EngineError, match=f"{wrong!r}.*the model has {encoders.vocabulary}"):
            engine.run(changed, mask)


def test_what_it_cannot_serve_is_refused(encoders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    with pytest.raises(EngineError, match="not model type 'distilbert'"):
        TorchCudaEngine(SentenceEncoder(DistilBertModel(config)), precision="fp16", device="cpu")
    with pytest.raises(EngineError, match="precision='int8' is none of"):
        TorchCudaEngine(encoders.encoder(), precision="int8", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r"sees no NVIDIA GPU.*serve on the CPU"):
        TorchCudaEngine(encoders.encoder(), precision="fp16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_of_today_leaves_padding_out_of_attention_too(encoders: Any) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU is older than FlashAttention's kernels")
    assert all(
        varlen_works(dtype, torch.device("cuda"), 64) for dtype in (torch.float16, torch.bfloat16)
    )
    engine = TorchCudaEngine(encoders.encoder(), precision="fp16")
    assert engine.attention == "varlen"
    batch = pad(encoders.windows([5, 9]), 0)
    for _ in range(3):
        engine.run(*batch)
    assert len(engine._lane().shapes) == 1


def test_a_cpu_has_no_such_kernel() -> None:
    assert not varlen_works(torch.float16, torch.device("cpu"), 16)
