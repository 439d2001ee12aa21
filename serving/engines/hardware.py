"""What decides how fast an engine is: the processor, the GPU, and the libraries' versions."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from data.manifest import canonical_digest
from serving.batching.memory import nvml_device

LIBRARIES: Final = (
    *("torch", "onnxruntime", "openvino"),
    *("tensorrt", "tensorrt-cu13", "tensorrt-rtx-cu13-libs"),
)
_CPUINFO: Final = Path("/proc/cpuinfo")


class Hardware(BaseModel):
    """A machine, as far as an engine's speed depends on it.

    Attributes:
        cpu: model name.
        flags: instruction sets, sorted.
        cores: that this process may use.
        gpu: name, compute capability and driver; None where there is none.
        libraries: installed engines' libraries and their versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: str
    flags: tuple[str, ...]
    cores: int
    gpu: str | None
    libraries: dict[str, str]

    @property
    def key(self) -> str:
        """The same for machines that are alike, 16 hex digits."""
        return canonical_digest(self.model_dump())[:16]


def this_hardware() -> Hardware:
    """The machine at hand."""
    fields: dict[str, str] = {}
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    libraries = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            libraries[name] = version(name)
    return Hardware(
        cpu=" ".join(
            fields.get(name, "") for name in ("model name", "cpu family", "model", "stepping")
        ).strip()
        or platform.machine(),
        flags=tuple(sorted(set(fields.get("flags", fields.get("Features", "")).split()))),
        cores=len(os.sched_getaffinity(0)),
        gpu=_gpu(),
        libraries=libraries,
    )


def _gpu() -> str | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = nvml_device(pynvml, 0)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        name, driver = pynvml.nvmlDeviceGetName(handle), pynvml.nvmlSystemGetDriverVersion()
    except (pynvml.NVMLError, LookupError):
        return None
    return f"{name}, SM {major}.{minor}, driver {driver}"
