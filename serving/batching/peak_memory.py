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
    124 KiB, which drifts from call to call. So all is added up before the call, and the call begins
    any number of pages after that: calls of like size are then not all short alike, and their
    spread tells how far any may be.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    at_once = max(32, 2 * (os.cpu_count() or 1)) * mmap.PAGESIZE  # the kernel's own rule
    held = _RANDOM.randrange(0, at_once, mmap.PAGESIZE)
    with mmap.mmap(-1, at_once, flags=mmap.MAP_PRIVATE) as pages:
        try:
            _add_up(at_once)
            before = _status("VmRSS")
            _touch(pages, held)
            (PROC / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        except OSError:
            return _sampled(call, lambda: int(psutil.Process().memory_info().rss)), "sampled"
        call()
        return max(_status("VmHWM") - before - held, 0), "VmHWM"


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


def _add_up(at_once: int) -> None:
    """Has Linux add up the pages of each CPU: taking so many bytes away at once makes it do so."""
    allowed = os.sched_getaffinity(0)
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            with mmap.mmap(-1, 2 * at_once, flags=mmap.MAP_PRIVATE) as pages:
                _touch(pages, 2 * at_once)
    finally:
        os.sched_setaffinity(0, allowed)


def _touch(pages: mmap.mmap, size: int) -> None:
    for start in range(0, size, mmap.PAGESIZE):
        pages[start] = 1


def _status(field: str) -> int:
    """A size from /proc/self/status, in bytes."""
    for line in (PROC / "status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {field!r}; this Linux cannot tell a process's memory")
