"""What memory is really free, read live: a container's or the machine's, or a GPU's."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import psutil

CGROUP: Final = Path("/sys/fs/cgroup")
_V1_FILES: Final = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
_V2_FILES: Final = ("memory.max", "memory.current")


@dataclass(frozen=True)
class MemoryReading:
    """Memory at one moment, in bytes.

    Attributes:
        free: what can still be had, without swapping.
        own: what this process holds of that memory now, model included.
    """

    free: int
    own: int


class MemorySource(Protocol):
    """Reads memory; quick, and safe to call in the event loop's thread."""

    def __call__(self) -> MemoryReading:
        """Read it now."""
        ...


class HostMemory:
    """The CPU's: the machine's, or what a container leaves where that is less."""

    def __init__(self, cgroup: Path = CGROUP):
        """Remember where to read."""
        self._cgroup = cgroup
        self._process = psutil.Process()

    def __call__(self) -> MemoryReading:
        """See ``MemorySource``."""
        return MemoryReading(free_bytes(self._cgroup), int(self._process.memory_info().rss))


class GpuMemory:
    """One NVIDIA GPU's, by NVML: all processes on it count, not this one's allocator alone."""

    def __init__(self, index: int = 0):
        """Open NVML.

        Args:
            index: of the device, as CUDA counts in this process.

        Raises:
            SettingsError: there is no NVML, or no such device.
        """
        from data.errors import SettingsError

        try:
            import pynvml

            pynvml.nvmlInit()
            self._device = nvml_device(pynvml, index)
        except Exception as error:  # NVML's errors share a base that is absent without it
            raise SettingsError(
                f"NVML cannot read GPU {index!r}: {error}; install nvidia-ml-py and a driver, or "
                "serve on the CPU"
            ) from error
        self._nvml = pynvml

    def __call__(self) -> MemoryReading:
        """See ``MemorySource``.

        In a container NVML may not tell which process is ours. Then own is what torch holds;
        without torch it is 0, so that batches in flight are counted twice: less is admitted, never
        too much.
        """
        whole = self._nvml.nvmlDeviceGetMemoryInfo(self._device)
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._device)
        except self._nvml.NVMLError:  # a sandbox may know the device alone
            processes = []
        own = sum(each.usedGpuMemory or 0 for each in processes if each.pid == os.getpid())
        return MemoryReading(int(whole.free), int(own) or _torch_bytes())


def nvml_device(nvml: Any, index: int) -> Any:
    """NVML's handle of a device, which CUDA may count otherwise.

    CUDA_VISIBLE_DEVICES hides and renumbers GPUs for CUDA, not for NVML. (A machine of unlike GPUs
    also needs CUDA_DEVICE_ORDER=PCI_BUS_ID, or CUDA counts the fastest first.)

    Args:
        nvml: pynvml, initialised.
        index: of the device, as CUDA counts in this process.

    Raises:
        LookupError: CUDA sees fewer devices.
        pynvml.NVMLError: there is no such device.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    name = str(index) if visible is None else visible.split(",")[index].strip()
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _torch_bytes() -> int:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return int(torch.cuda.memory_reserved())


def free_bytes(cgroup: Path = CGROUP) -> int:
    """Bytes that can be had without swapping.

    The machine's, or what its container leaves where that is less: psutil sees the machine alone.
    """
    available = int(psutil.virtual_memory().available)
    for limit_name, used_name in (_V2_FILES, _V1_FILES):
        limit_file = cgroup / limit_name
        try:
            limit = limit_file.read_text(encoding="ascii").strip()
            used = int((cgroup / used_name).read_text(encoding="ascii"))
            counted = (limit_file.parent / "memory.stat").read_text(encoding="ascii").split()
        except OSError:  # no container, or one of the other kind
            continue
        if limit == "max":
            return available
        # Files that were read long ago count as used, and are given up when memory is wanted.
        name = "total_inactive_file" if "total_inactive_file" in counted else "inactive_file"
        cached = int(counted[counted.index(name) + 1])
        return min(available, int(limit) - used + cached)
    return available
