"""Files that only grow, a line at a time, and are on disk when the writer goes on.

A process that is killed while it writes leaves at most a last line that is cut short; readers do
not see it, and the next writer takes it away.
"""

import os
from pathlib import Path


def append_line(path: Path, line: str) -> None:
    """Add a line; it is on disk when this returns.

    Args:
        path: the file, made if it is not there; its folder must be.
        line: without a newline.

    Raises:
        OSError: it cannot be written.
    """
    is_new = not path.exists()
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        whole = file.read(size).rfind(b"\n") + 1
        if whole < size:
            file.truncate(whole)
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        _sync_folder(path.parent)


def read_lines(path: Path) -> list[str]:
    """The lines that were written whole; none if there is no file."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return text[: text.rfind(b"\n") + 1].decode().splitlines()


def _sync_folder(folder: Path) -> None:
    # Without this the file's name may be lost with the power, though its contents are on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
