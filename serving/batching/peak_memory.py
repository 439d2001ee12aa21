"""The most memory that one call takes beyond what is held before it: on a CPU, or a GPU."""

import ctypes
import gc
import mmap
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import psutil

PeakSource = Literal["VmHWM", "sampled", "torch", "NVML"]
PROC: Final = Path("/proc/self")
_RESET_PEAK: Final = "5"
_SAMPLE_S: Final = 5e-4
_RANDOM: Final = random.Random(20_261_130)  # noqa: S311  # spreads pages, hides nothing
Call = Callable[[], object]


def host_peak(call: Call) -> tuple[int, PeakSource]:
    """Bytes that a call took at most, exact where Linux lets the high-water mark be reset.

    Memory that was freed before is given back to the system first, or the call would seem to take
    less by using it again.

    Linux counts a process's pages on each CPU by itself and adds them up 32 or more at a time. Its
    high-water mark leaves out what is not added up yet: for a CPU that the process ran on, up to
    124 KiB. What is taken from it leaves out the same (VmRSS, exact on newer kernels, would make
    an offset of it that drifts from call to call). And the call begins any number of pages after
    such a sum: calls of like size are then not all wrong alike, so that their spread tells how far
    any may be.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        (PROC / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return _sampled(call, lambda: int(psutil.Process().memory_info().rss)), "sampled"
    at_once = max(32, 2 * (os.cpu_count() or 1))  # the kernel's percpu_counter_batch
    with mmap.mmap(-1, 2 * at_once * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE) as pages:
        summed = _counted()
        offset = 0
        while (before := _counted()) == summed and offset < at_once * mmap.PAGESIZE:
            pages[offset] = 1
            offset += mmap.PAGESIZE
        held = _RANDOM.randrange(at_once) * mmap.PAGESIZE
        for start in range(offset, offset + held, mmap.PAGESIZE):
            pages[start] = 1
        call()
        return max(_high_water() - before - held, 0), "VmHWM"


def gpu_peak(call: Call) -> tuple[int, PeakSource]:
    """Bytes of the current GPU that a call took at most.

    Torch's allocator says it exactly; what other libraries took and kept is added. Where torch has
    no GPU, all is sampled by NVML.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, others = int(torch.cuda.memory_allocated()), _others_bytes(torch.cuda)
        call()
        torch.cuda.synchronize()
        grown = max(_others_bytes(torch.cuda) - others, 0)
        return max(int(torch.cuda.max_memory_allocated()) - before, 0) + grown, "torch"
    from serving.batching.memory import GpuMemory

    memory = GpuMemory()
    whole = memory().free
    return _sampled(call, lambda: whole - memory().free), "NVML"


def _others_bytes(cuda: Any) -> int:
    """What is in use on the GPU beside torch's own: TensorRT's contexts, say."""
    free, whole = cuda.mem_get_info()
    return int(whole - free - cuda.memory_reserved())


def _sampled(call: Call, used: Callable[[], int]) -> int:
    before = most = used()
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, used())
            time.sleep(_SAMPLE_S)

    watcher = threading.Thread(target=watch, name="peak-memory", daemon=True)
    watcher.start()
    try:
        call()
    finally:
        done.set()
        watcher.join()
    return max(most - before, used() - before, 0)  # what is kept may come after the last sample


def _counted() -> int:
    """Bytes that the process holds as the high-water mark counts them.

    It is field 24 of /proc/self/stat, in pages; the second, a name, may hold spaces.
    """
    fields = (
        (PROC / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )
    return int(fields[24 - 3]) * mmap.PAGESIZE


def _high_water() -> int:
    """Bytes that the process held at most since the mark was reset."""
    for line in (PROC / "status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise OSError("/proc/self/status has no VmHWM; this Linux cannot tell a process's memory")
