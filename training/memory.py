"""Whether there is memory enough for a process that is about to start."""

from typing import Final

from data.errors import SettingsError
from serving.batching.memory import free_bytes

__all__ = ["check_memory", "free_bytes"]
_GIB: Final = 2**30


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
