"""The GPU's engine among others: offered, timed, fitted and calibrated."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data.errors import EngineError
from serving.batching import calibrate as calibrating
from serving.batching.calibrate import CalibrationRequest
from serving.batching.costs import CostModel
from serving.engines import measuring, torch_cuda, tune
from serving.engines.choice import ENGINES, engines_of, make_engine
from serving.engines.torch_cuda import TorchCudaEngine


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


def test_it_is_timed_by_the_gpus_clock_and_memory(
    encoders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    model = encoders.encoder()

    (row,) = measuring.measure_engines(
        ["torch-cuda-fp16"],
        lambda name: TorchCudaEngine(model, precision="fp16", device="cpu"),
        encoders.windows([5, 9, 30, 12] * 5),
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
