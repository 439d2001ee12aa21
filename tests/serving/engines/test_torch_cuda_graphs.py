"""What the GPU's engine records: which shapes, for how long, and what it does without."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from serving.batching import calibrate as calibrating
from serving.batching.calibrate import CalibrationRequest
from serving.engines import recorded
from serving.engines.torch_cuda import TorchCudaEngine
from serving.windows import pad


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


def test_what_is_recorded_answers_as_what_is_not(encoders: Any) -> None:
    model, counted = encoders.encoder(), Counted()
    plain = TorchCudaEngine(model, precision="fp16", device="cpu")
    engine = TorchCudaEngine(model, precision="fp16", device="cpu", recorder=counted)

    for seed, lengths in enumerate([[5, 9, 30], [30, 5, 9], [6, 7, 31], [20, 3, 17], [4] * 4]):
        batch = pad(encoders.windows(lengths, seed), 0)
        ours, theirs = (each.run(*batch)["embedding"] for each in (engine, plain))
        np.testing.assert_allclose(ours, theirs, atol=2e-3)

    assert counted.made == 1  # all of these fit into one shape
    assert counted.replayed == 4


def test_few_recordings_are_kept_and_large_batches_are_not_recorded(
    encoders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST_RECORDINGS", 2)
    monkeypatch.setattr(recorded, "STALE_RUNS", 10)
    monkeypatch.setattr(recorded, "MOST_RECORDED_TOKENS", 100)
    counted = Counted()
    engine = TorchCudaEngine(encoders.encoder(), precision="fp16", device="cpu", recorder=counted)

    def run(*rows: int) -> set[int]:
        for count in rows:
            engine.run(*pad(encoders.windows([5] * count), 0))
        return {shape.windows for shape in engine._lane().shapes}

    assert run(1, 1, 2, 2, 4, 4, 30, 30) == {1, 2}
    assert run(*[1, 2, 4] * 5) == {1, 2}  # shapes that take turns do not drive each other out
    assert counted.made == 2
    assert run(*[2, 4] * 6) == {2, 4}  # what is not used any more makes room
    assert counted.made == 3


def test_a_batch_shows_its_memory_when_it_is_calibrated(
    encoders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrating, "gpu_peak", lambda call: (call(), (7, "torch"))[1])
    counted = Counted()
    engine = TorchCudaEngine(encoders.encoder(), precision="fp16", device="cpu", recorder=counted)
    request = CalibrationRequest(make="a:b", device="gpu", max_tokens=64, max_batch_tokens=64)
    for _ in range(3):
        batch, _ = calibrating._run(engine, [5, 9], request)
    assert (batch.bytes, batch.tokens, counted.made) == (7, 14, 0)


def test_a_recorder_that_fails_is_not_asked_again(
    encoders: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def fails(run: recorded.Run) -> Any:
        asked.append(run)
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = TorchCudaEngine(
        encoders.encoder(), precision="fp16", device="cpu", recorder=lambda: fails
    )
    batch = pad(encoders.windows([5, 9]), 0)

    answers = [engine.run(*batch)["embedding"] for _ in range(4)]

    assert len(asked) == 1
    assert "no CUDA graph of" in caplog.text
    for answer in answers:
        np.testing.assert_allclose(answer, answers[0], atol=2e-3)


def test_short_memory_puts_recording_off(encoders: Any, caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def fails(run: recorded.Run) -> Any:
        asked.append(run)
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = TorchCudaEngine(
        encoders.encoder(), precision="fp16", device="cpu", recorder=lambda: fails
    )
    batch = pad(encoders.windows([5, 9]), 0)
    for _ in range(4):
        engine.run(*batch)
    assert len(asked) == 1
    assert "none for a minute" in caplog.text
    engine._lane()._not_before = 0.0
    for _ in range(2):
        engine.run(*batch)
    assert len(asked) == 2


def test_threads_do_not_disturb_each_other(encoders: Any, device: str) -> None:
    recorder = Counted() if device == "cpu" else None
    engine = TorchCudaEngine(encoders.encoder(), precision="fp16", device=device, recorder=recorder)
    batches = [pad(encoders.windows([5, 9, 30], seed=seed), 0) for seed in range(12)]
    alone = [engine.run(*batch)["embedding"] for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.run(*batch)["embedding"], batches * 2))

    for one, other in zip(together, alone * 2, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
