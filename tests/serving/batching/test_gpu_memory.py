"""What NVML and torch say of a GPU's memory, and what is made of it; neither has a GPU here."""

import os
import sys
from types import SimpleNamespace

import pytest

from data.errors import SettingsError
from serving.batching.memory import GpuMemory, MemoryReading
from serving.batching.peak_memory import gpu_peak
from serving.engines.measuring import gpu_clock

MIB = 2**20


class FakeNvml:
    """NVML of two GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.free = {0: 1000 * MIB, 1: 700 * MIB}
        self.processes = {0: [], 1: [(os.getpid(), 64 * MIB), (1, 32 * MIB), (os.getpid(), None)]}

    def nvmlInit(self):  # noqa: N802 - NVML's names
        pass

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if index not in self.free:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        return {"GPU-aa": 0, "GPU-bb": 1}[name]

    def nvmlDeviceGetMemoryInfo(self, device):  # noqa: N802
        return SimpleNamespace(free=self.free[device])

    def nvmlDeviceGetComputeRunningProcesses(self, device):  # noqa: N802
        pairs = self.processes[device]
        if pairs is None:
            raise self.NVMLError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in pairs]


class FakeCuda:
    """torch.cuda where a call takes memory of torch's and of its own."""

    def __init__(self):
        self.allocated = self.peak = 10 * MIB
        self.reserved, self.others, self.waited = 20 * MIB, 5 * MIB, 0
        self.is_initialized = lambda: True
        self.memory_allocated = lambda: self.allocated
        self.max_memory_allocated = lambda: self.peak
        self.memory_reserved = lambda: self.reserved
        self.reset_peak_memory_stats = lambda: setattr(self, "peak", self.allocated)
        self.mem_get_info = lambda: (1000 * MIB - self.reserved - self.others, 1000 * MIB)

    def synchronize(self):
        self.waited += 1


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=fake))
    return fake


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize(
    ("visible", "index", "device"),
    [(None, 1, 1), ("1", 0, 1), ("1,0", 1, 0), ("GPU-bb", 0, 1), ("GPU-bb, GPU-aa", 1, 0)],
)
def test_the_gpu_that_is_read_is_the_one_that_cuda_uses(
    nvml, no_torch, monkeypatch, visible, index, device
):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    expected = [MemoryReading(1000 * MIB, 0), MemoryReading(700 * MIB, 64 * MIB)][device]
    memory = GpuMemory(index)
    assert memory() == expected
    nvml.free[device] -= 300 * MIB  # another process
    assert memory().free == expected.free - 300 * MIB


def test_a_hidden_or_absent_gpu_is_an_error(nvml, monkeypatch):
    with pytest.raises(SettingsError, match=r"GPU 7.*Invalid Argument"):
        GpuMemory(7)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(SettingsError, match="GPU 1"):
        GpuMemory(1)


def test_where_nvml_hides_our_process_torch_says_what_it_holds(nvml, cuda):
    assert GpuMemory(0)() == MemoryReading(1000 * MIB, 20 * MIB)
    assert GpuMemory(1)().own == 64 * MIB
    nvml.processes[1] = None
    assert GpuMemory(1)().own == 20 * MIB


def test_a_calls_peak_on_a_gpu_is_torchs_and_what_others_keep(cuda):
    def call():
        cuda.peak = cuda.allocated + 300 * MIB
        cuda.reserved += 310 * MIB
        cuda.others += 7 * MIB

    assert gpu_peak(call) == (307 * MIB, "torch")
    assert cuda.waited == 2
    assert gpu_peak(lambda: None) == (0, "torch")


def test_a_calls_peak_without_torch_is_sampled(nvml, no_torch):
    def call():
        nvml.free[0] -= 100 * MIB

    assert gpu_peak(call) == (100 * MIB, "NVML")


def test_the_clock_waits_for_the_gpu(cuda, monkeypatch):
    first = gpu_clock()
    assert cuda.waited == 1
    cuda.is_initialized = lambda: False
    assert gpu_clock() >= first
    assert cuda.waited == 1
