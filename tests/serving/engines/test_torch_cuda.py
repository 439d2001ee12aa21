"""The GPU's engine, on the CPU beside the model itself, and on a GPU where there is one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from data.errors import EngineError, EngineMemoryError
from serving.batching import calibrate as calibrating
from serving.batching.calibrate import CalibrationRequest
from serving.batching.costs import CostModel
from serving.encoder import load_encoder
from serving.engines import measuring, recorded, torch_cuda, tune
from serving.engines.choice import ENGINES, engines_of, make_engine
from serving.engines.half_encoder import HalfPrecision, varlen_works
from serving.engines.packed_batch import BatchShape, pack, shape_of, unpack
from serving.engines.pytorch import PytorchEngine
from serving.engines.torch_cuda import TorchCudaEngine
from serving.sentence_encoder import SentenceEncoder
from serving.windows import pad

MAX_TOKENS = 48
VOCABULARY = 60
FARTHEST: dict[HalfPrecision, float] = {"fp16": 1e-4, "bf16": 2e-3}
PRECISIONS: list[HalfPrecision] = list(FARTHEST)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS,
}
SHIFTED = SIZES | {"max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 1}
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=16)),
    "bert-relu": lambda: BertModel(BertConfig(**SIZES, hidden_act="relu")),
    "roberta": lambda: RobertaModel(RobertaConfig(**SHIFTED, hidden_act="gelu_new")),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def _skip_without(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")


def _encoder(kind: str = "electra") -> SentenceEncoder:
    torch.manual_seed(7)
    backbone = BACKBONES[kind]()
    for name, parameter in backbone.named_parameters():
        # As far from their fresh values as trained ones: a bias left out must be seen.
        if name.endswith("bias") or "LayerNorm" in name:
            nn.init.normal_(parameter, mean=float("weight" in name), std=0.3)
        elif "dense" in name or "attention" in name:
            nn.init.normal_(parameter, std=0.2)
    return SentenceEncoder(backbone).eval()


def _windows(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCABULARY, size=length).tolist() for length in lengths]


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / lengths)


class Counted:
    """Records by running again, as a CUDA graph would, and counts."""

    def __init__(self) -> None:
        self.made = self.replayed = 0

    def __call__(self) -> recorded.Record:
        def record(run: recorded.Run) -> Any:
            self.made += 1
            outputs = run()

            def replay() -> None:
                self.replayed += 1
                for name, values in run().items():
                    outputs[name].copy_(values)

            return replay, outputs

        return record


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_vectors_are_the_source_models(kind: str, precision: HalfPrecision, device: str) -> None:
    _skip_without(device)
    model = _encoder(kind)
    ids, mask = pad(_windows([1, 2, 7, 46, 7, 19, 31, MAX_TOKENS]), 1)
    source = PytorchEngine(model).run(ids, mask)["embedding"]
    engine = TorchCudaEngine(model, precision=precision, device=device)

    for _ in range(3):  # by itself, while it is recorded, and replayed
        ours = engine.run(ids, mask)["embedding"]
        assert ours.dtype == np.float32
        assert _cosines(ours, source).min() > 1 - FARTHEST[precision]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_head_of_a_classifier_answers_alike(
    torch_twin: Path, precision: HalfPrecision, device: str
) -> None:
    _skip_without(device)
    model = load_encoder(torch_twin)
    rng = np.random.default_rng(1)
    ids, mask = pad([rng.integers(5, 17, size=length).tolist() for length in (3, 9, 4, 32)], 0)
    source = PytorchEngine(model).run(ids, mask)

    ours = TorchCudaEngine(model, precision=precision, device=device).run(ids, mask)

    assert list(ours) == list(source)
    near = {"fp16": 0.005, "bf16": 0.03}[precision]
    for name, values in source.items():
        assert np.abs(ours[name] - values).max() <= near * max(1.0, np.abs(values).max()), name


def test_what_is_recorded_answers_as_what_is_not() -> None:
    model, counted = _encoder(), Counted()
    plain = TorchCudaEngine(model, precision="fp16", device="cpu")
    engine = TorchCudaEngine(model, precision="fp16", device="cpu", recorder=counted)

    for seed, lengths in enumerate([[5, 9, 30], [30, 5, 9], [6, 7, 31], [20, 3, 17], [4] * 4]):
        batch = pad(_windows(lengths, seed), 0)
        ours, theirs = (each.run(*batch)["embedding"] for each in (engine, plain))
        np.testing.assert_allclose(ours, theirs, atol=2e-3)

    assert counted.made == 1  # all of these fit into one shape
    assert counted.replayed == 4


def test_few_recordings_are_kept_and_large_batches_are_not_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorded, "MOST_RECORDINGS", 2)
    monkeypatch.setattr(recorded, "STALE_RUNS", 10)
    monkeypatch.setattr(recorded, "MOST_RECORDED_TOKENS", 100)
    counted = Counted()
    engine = TorchCudaEngine(_encoder(), precision="fp16", device="cpu", recorder=counted)

    def run(*rows: int) -> set[int]:
        for count in rows:
            engine.run(*pad(_windows([5] * count), 0))
        return {shape.windows for shape in engine._lane().shapes}

    assert run(1, 1, 2, 2, 4, 4, 30, 30) == {1, 2}
    assert run(*[1, 2, 4] * 5) == {1, 2}  # shapes that take turns do not drive each other out
    assert counted.made == 2
    assert run(*[2, 4] * 6) == {2, 4}  # what is not used any more makes room
    assert counted.made == 3


def test_a_batch_shows_its_memory_when_it_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "gpu_peak", lambda call: (call(), (7, "torch"))[1])
    counted = Counted()
    engine = TorchCudaEngine(_encoder(), precision="fp16", device="cpu", recorder=counted)
    request = CalibrationRequest(make="a:b", device="gpu", max_tokens=64, max_batch_tokens=64)
    for _ in range(3):
        batch, _ = calibrating._run(engine, [5, 9], request)
    assert (batch.bytes, batch.tokens, counted.made) == (7, 14, 0)


def test_a_recorder_that_fails_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def fails(run: recorded.Run) -> Any:
        asked.append(run)
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = TorchCudaEngine(_encoder(), precision="fp16", device="cpu", recorder=lambda: fails)
    batch = pad(_windows([5, 9]), 0)

    answers = [engine.run(*batch)["embedding"] for _ in range(4)]

    assert len(asked) == 1
    assert "no CUDA graph of" in caplog.text
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=2e-3)


def test_short_memory_puts_recording_off(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def fails(run: recorded.Run) -> Any:
        asked.append(run)
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = TorchCudaEngine(_encoder(), precision="fp16", device="cpu", recorder=lambda: fails)
    batch = pad(_windows([5, 9]), 0)
    for _ in range(4):
        engine.run(*batch)
    assert len(asked) == 1
    assert "none for a minute" in caplog.text
    engine._lane()._not_before = 0.0
    for _ in range(2):
        engine.run(*batch)
    assert len(asked) == 2


@pytest.mark.parametrize("device", DEVICES)
def test_an_answer_does_not_depend_on_its_batch_mates(device: str) -> None:
    _skip_without(device)
    engine = TorchCudaEngine(_encoder(), precision="fp16", device=device)
    assert engine.batch_invariant
    rng = np.random.default_rng(3)
    window = _windows([11], seed=4)[0]
    alone = engine.run(*pad([window], 0))["embedding"][0]
    for _ in range(8):
        mates = _windows(rng.integers(1, MAX_TOKENS, size=rng.integers(1, 9)).tolist(), seed=5)
        place = int(rng.integers(0, len(mates) + 1))
        mates.insert(place, window)
        among = engine.run(*pad(mates, 0))["embedding"][place]
        assert np.abs(among - alone).max() < 4e-3


@pytest.mark.parametrize("device", DEVICES)
def test_threads_do_not_disturb_each_other(device: str) -> None:
    _skip_without(device)
    recorder = Counted() if device == "cpu" else None
    engine = TorchCudaEngine(_encoder(), precision="fp16", device=device, recorder=recorder)
    batches = [pad(_windows([5, 9, 30], seed=seed), 0) for seed in range(12)]
    alone = [engine.run(*batch)["embedding"] for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.run(*batch)["embedding"], batches * 2))

    for one, other in zip(together, alone * 2, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


class _Greedy(nn.Module):
    """Asks torch for more memory than any machine has, when it pools."""

    def __init__(self, model: SentenceEncoder):
        super().__init__()
        self.backbone = model.backbone
        self.greedy = True

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        raise AssertionError("the engine computes states itself")

    def outputs(self, states: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        size = 1 << 50 if len(states) > 1 else 4
        return {"embedding": torch.zeros(len(states), size // len(states), device=states.device)}


@pytest.mark.parametrize("device", DEVICES)
def test_running_out_of_memory_has_its_own_error_and_passes(device: str) -> None:
    _skip_without(device)
    engine = TorchCudaEngine(_Greedy(_encoder()), precision="fp16", device=device)

    for _ in range(3):
        with pytest.raises(EngineMemoryError, match=r"shape \(2, 4\).*smaller batches"):
            engine.run(*pad(_windows([4, 3]), 0))
        assert engine.run(*pad(_windows([4]), 0))["embedding"].shape == (1, 4)


def test_the_backbone_is_not_copied_twice() -> None:
    model = _encoder()
    engine = TorchCudaEngine(model, precision="bf16", device="cpu")
    assert not list(engine._encoder._rest.backbone.parameters())
    assert list(model.backbone.parameters())


def test_bad_batches_are_refused_by_name() -> None:
    engine = TorchCudaEngine(_encoder("roberta"), precision="fp16", device="cpu")
    ids, mask = pad(_windows([4, 3]), 1)
    with pytest.raises(EngineError, match="row 1 of the batch"):
        engine.run(ids, mask * np.array([[1], [0]]))
    with pytest.raises(EngineError, match=f"{MAX_TOKENS + 1} tokens.*lower max_tokens"):
        engine.run(*pad(_windows([MAX_TOKENS + 1]), 1))
    for wrong in (VOCABULARY, -1):
        changed = ids.copy()
        changed[1, 0] = wrong
        with pytest.raises(EngineError, match=f"{wrong!r}.*the model has {VOCABULARY}"):
            engine.run(changed, mask)


def test_what_it_cannot_serve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    with pytest.raises(EngineError, match="not model type 'distilbert'"):
        TorchCudaEngine(SentenceEncoder(DistilBertModel(config)), precision="fp16", device="cpu")
    with pytest.raises(EngineError, match="precision='int8' is none of"):
        TorchCudaEngine(_encoder(), precision="int8", device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match=r"sees no NVIDIA GPU.*serve on the CPU"):
        TorchCudaEngine(_encoder(), precision="fp16")


def test_a_machine_without_a_gpu_is_not_offered_it(
    torch_twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [name for name in ENGINES if name.startswith("torch-cuda")]
    assert ours == ["torch-cuda-fp16", "torch-cuda-bf16"]
    assert {ENGINES[name].device for name in ours} == {"gpu"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not set(ours) & set(engines_of(torch_twin))
    with pytest.raises(EngineError, match=r"'torch-cuda-fp16' cannot serve.*no NVIDIA GPU"):
        make_engine("torch-cuda-fp16", torch_twin)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert set(ours) & set(engines_of(torch_twin)) == {"torch-cuda-fp16"}
    assert "'Tesla T4'" in (torch_cuda.unfit_here("bf16") or "")


def test_it_is_timed_by_the_gpus_clock_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def peak(call: Callable[[], object]) -> tuple[int, str]:
        call()
        asked.append("peak")
        return 3 * 2**20, "NVML"

    def clock() -> float:
        asked.append("clock")
        return float(len(asked))

    monkeypatch.setattr(measuring, "gpu_peak", peak)
    monkeypatch.setattr(measuring, "gpu_clock", clock)
    model = _encoder()

    (row,) = measuring.measure_engines(
        ["torch-cuda-fp16"],
        lambda name: TorchCudaEngine(model, precision="fp16", device="cpu"),
        _windows([5, 9, 30, 12] * 5),
        0,
    )

    assert row.error is None
    assert row.peak_mib == 3
    assert asked.count("peak") == 1
    assert row.tokens_per_s == 2 * 56 * 5 / (asked.count("clock") / 2)


def test_its_costs_are_fitted_on_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[CalibrationRequest] = []

    def calibrate(request: CalibrationRequest) -> Any:
        asked.append(request)
        return SimpleNamespace(costs=lambda: CostModel.unfitted(computes_padding=False))

    monkeypatch.setattr(tune, "calibrate", calibrate)
    for engine in ("torch-cuda-fp16", "torch-fp32"):
        choice: Any = SimpleNamespace(engine=engine, threads=1)
        tune._fit_costs(tmp_path, choice, 64, tmp_path / "choice.json")
    assert [request.device for request in asked] == ["gpu", "cpu"]
    assert (tmp_path / "choice.costs.json").is_file()


def test_a_batch_is_laid_into_a_larger_shape() -> None:
    ids, mask = pad([[7, 8, 9], [5]], 0)
    assert shape_of(mask) == BatchShape(tokens=4, windows=2, longest=3)
    shape = BatchShape(tokens=6, windows=3, longest=4)
    batch = unpack(torch.from_numpy(pack(ids, mask, shape)), shape)
    assert batch.ids.tolist() == [7, 8, 9, 5, 0, 0]
    assert batch.positions.tolist() == [0, 1, 2, 0, 0, 0]
    assert batch.places.tolist() == [0, 1, 2, 4, 12, 12]
    assert batch.starts.tolist() == [0, 3, 4, 4]
    assert batch.mask.long().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 1000, 1024, 1025, 5000])
def test_rounding_up_costs_little(tokens: int) -> None:
    shape = BatchShape(tokens, windows=max(tokens // 39, 1), longest=min(tokens, 90))
    rounded = shape.rounded_up(128)
    assert all(large >= small for large, small in zip(rounded, shape, strict=True))
    assert rounded.tokens <= max(64, tokens + max(64, tokens // 8))
    assert rounded.longest <= 128
    assert rounded.rounded_up(128) == rounded


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_of_today_leaves_padding_out_of_attention_too() -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU is older than FlashAttention's kernels")
    assert all(
        varlen_works(dtype, torch.device("cuda"), 64) for dtype in (torch.float16, torch.bfloat16)
    )
    engine = TorchCudaEngine(_encoder(), precision="fp16")
    assert engine.attention == "varlen"
    batch = pad(_windows([5, 9]), 0)
    for _ in range(3):
        engine.run(*batch)
    assert len(engine._lane().shapes) == 1


def test_a_cpu_has_no_such_kernel() -> None:
    assert not varlen_works(torch.float16, torch.device("cpu"), 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_is_tuned_and_calibrated(torch_twin: Path) -> None:
    names = [name for name in engines_of(torch_twin) if ENGINES[name].device == "gpu"]
    assert "torch-cuda-fp16" in names
    lengths = np.random.default_rng(2).integers(3, 33, size=60)
    windows = [[2, *[6] * int(length - 2), 3] for length in lengths]

    rows = measuring.measure_engines(
        ["torch-fp32-padded", *names], lambda name: make_engine(name, torch_twin), windows, 0
    )

    assert all(row.error is None for row in rows), rows
    assert all((row.cos_p1 or 0.0) > 0.99 for row in rows)
    found = calibrating.calibrate(
        CalibrationRequest(
            make="serving.engines.choice:make_engine",
            arguments={"name": "torch-cuda-fp16", "folder": str(torch_twin)},
            device="gpu",
            max_tokens=32,
            max_batch_tokens=1024,
        )
    )
    assert found.source == "torch"
    assert all(batch.bytes > 0 for batch in found.grid)
    assert not found.computes_padding
