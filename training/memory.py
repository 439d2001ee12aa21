"""How much memory is free for a process that is about to start, its container's limit included."""

from pathlib import Path
from typing import Final

import psutil

from data.errors import SettingsError

CGROUP: Final = Path("/sys/fs/cgroup")
_GIB: Final = 2**30


def free_bytes(cgroup: Path = CGROUP) -> int:
    """Bytes that can be had without swapping.

    The machine's, or what its container leaves where that is less: psutil sees the machine alone.
    """
    available = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text(encoding="ascii").strip()
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        counted = (cgroup / "memory.stat").read_text(encoding="ascii").split()
    except OSError:  # no container, or one of an older kind
        return available
    if limit == "max":
        return available
    # Files that were read long ago count as used, and are given up when memory is wanted.
    cached = int(counted[counted.index("inactive_file") + 1])
    return min(available, int(limit) - used + cached)


def check_memory(need: int, free: int, *, what: str) -> None:
    """Refuse to start what would be killed halfway.

    Args:
        need: bytes.
        free: bytes.
        what: who needs it, for the message.

    Raises:
        SettingsError: there is not enough.
    """
    if need > free:
        raise SettingsError(
            f"{what} needs {need / _GIB:.1f} GiB of memory, {free / _GIB:.1f} GiB are free; end "
            "what else runs here, lower the batch or the model, or take a larger machine"
        )
