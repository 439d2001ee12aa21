"""TensorRT as a library: imported when it is needed, its messages kept, its GPU named."""

import importlib
from collections import deque
from typing import Any, Final

from data.errors import EngineError

EXTRA: Final = "pip install '.[trt]'"
_LEAST_VERSION: Final = 11
_LINES: Final = 20
_MEMORY_WORDS: Final = (
    "out of memory", "outofmemory", "insufficient memory", "failed to allocate", "cudamalloc"
)  # fmt: skip


def import_tensorrt() -> Any:
    """The module ``tensorrt``.

    Raises:
        EngineError: it is not installed, or older than 11: there, a graph's types do not decide
            what is computed.
    """
    try:
        library = importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise EngineError(
            f"TensorRT cannot be imported: {error}; on a machine with an NVIDIA GPU, {EXTRA}"
        ) from error
    version = str(library.__version__)
    if int(version.partition(".")[0]) < _LEAST_VERSION:
        raise EngineError(
            f"TensorRT {version} is older than {_LEAST_VERSION}, whose networks are always "
            f"strongly typed; {EXTRA}"
        )
    return library


def listener(library: Any) -> Any:
    """A logger of TensorRT's kind that keeps the last errors in ``lines``, and prints nothing."""
    severity = library.ILogger.Severity
    kept = (severity.INTERNAL_ERROR, severity.ERROR)

    def begin(log: Any) -> None:
        library.ILogger.__init__(log)
        log.lines = deque(maxlen=_LINES)

    def listen(log: Any, level: Any, message: str) -> None:
        if level in kept:
            log.lines.append(message)

    # The base class is known only once the library is imported.
    return type("Listener", (library.ILogger,), {"__init__": begin, "log": listen})()


def said(log: Any) -> str:
    """What TensorRT said last, and forget it."""
    lines = list(log.lines)
    log.lines.clear()
    return "; ".join(lines) or "it gave no reason"


def tells_of_memory(message: str) -> bool:
    """Whether a message is about memory that is not there."""
    return any(words in message.lower() for words in _MEMORY_WORDS)


def this_sm() -> str:
    """Compute capability of the current GPU, such as "9.0".

    Raises:
        EngineError: torch sees no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise EngineError(
            f"TensorRT needs an NVIDIA GPU, and torch {torch.__version__} sees none; serve another "
            "engine, or run on a GPU with torch's CUDA build"
        )
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"
