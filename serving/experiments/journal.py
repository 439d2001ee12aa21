"""Exposures that were acknowledged before the store has committed them, in files of their own.

A line is written to the operating system before its answer is sent, so it outlives the process,
SIGKILL included; it is not forced to the disk, so the power must not fail before the store's own
commit, milliseconds later. A file whose process is gone is read again by the next one that starts:
what the store has already changes nothing.

    a line      CRC-32 of the rest, 8 hex digits · space · JSON of one request's exposures
    a segment   a file of lines, locked by its process; removed once the store has all of it
"""

import errno
import fcntl
import logging
import os
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import orjson

from data.errors import ExperimentError
from serving.experiments.store import Exposure, RequestIdReusedError

_SUFFIX: Final = ".journal"
_SEGMENT_BYTES: Final = 8 * 2**20
_FIELDS: Final = tuple(field.name for field in fields(Exposure))
_CHECKSUM: Final = 8
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Segment:
    """One file of this process.

    Attributes:
        path: of the file.
        descriptor: open for appending, and locked.
        size: in bytes.
        waiting: lines that the store has not committed yet.
        refused: whether there is a line that the store refused, which must be tried again.
    """

    path: Path
    descriptor: int
    size: int = 0
    waiting: int = 0
    refused: bool = False


class Journal:
    """The segments of one process. ``append`` may be called beside ``settle``, from any thread."""

    def __init__(self, folder: Path, *, segment_bytes: int = _SEGMENT_BYTES):
        """Write into a folder, which may be other processes' too.

        Raises:
            ExperimentError: it cannot be written.
        """
        self._folder = folder
        self._most = segment_bytes
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._active = self._begin()
        except OSError as error:
            raise ExperimentError(
                f"cannot write a journal in {str(folder)!r}: {error.strerror}; set "
                "MATJIP_JOURNAL_FOLDER to a folder of this machine's that can be written, or "
                "MATJIP_STORE_ACK=committed"
            ) from error

    def append(self, shown: Sequence[Exposure]) -> Segment:
        """Write one request's exposures; they outlive the process once this returns.

        Raises:
            ExperimentError: the file cannot be written; nothing is acknowledged.
        """
        line = _line(shown)
        with self._lock:
            try:
                if self._active.size + len(line) > self._most and self._active.size:
                    self._active = self._begin()
                segment = self._active
                written = os.write(segment.descriptor, line)
                if written < len(line):
                    os.ftruncate(segment.descriptor, segment.size)
                    raise OSError(errno.ENOSPC, "the disk is full")  # noqa: TRY301
            except OSError as error:
                raise ExperimentError(
                    f"cannot write the journal in {str(self._folder)!r}: {error.strerror}; make "
                    "room, then send the request again"
                ) from error
            segment.size += len(line)
            segment.waiting += 1
            return segment

    def settle(self, segment: Segment, *, committed: bool) -> None:
        """The store has committed a line, or refused it; a refused one waits for ``recover``."""
        with self._lock:
            segment.waiting -= 1
            segment.refused |= not committed
            if segment is not self._active and not segment.waiting and not segment.refused:
                self._remove(segment)

    @property
    def has_refused(self) -> bool:
        """Whether lines wait that the store has refused."""
        return any(segment.refused for segment in self._segments)

    def recover(self, write: Callable[[Sequence[Exposure]], object]) -> int:
        """Write again what processes that are gone, and what the store refused, have left.

        Args:
            write: commits exposures, twice the same without harm; raises RequestIdReusedError for
                a request that was answered otherwise before, which then stays as it was.

        Returns:
            How many requests were written.

        Raises:
            OSError: a file cannot be read.
            sqlalchemy.exc.SQLAlchemyError: the database refused; nothing is removed.
        """
        count = 0
        for segment in self._to_recover():
            try:
                for shown in _read(segment.path):
                    _write_again(write, shown, segment.path.name)
                    count += 1
            except BaseException:
                if segment not in self._segments:
                    os.close(segment.descriptor)  # else nobody could lock it again
                raise
            with self._lock:
                self._remove(segment)
        return count

    def close(self) -> None:
        """Remove what the store has; what it refused stays for the next process."""
        with self._lock:
            for segment in list(self._segments):
                if segment.waiting or segment.refused:
                    os.close(segment.descriptor)
                else:
                    self._remove(segment)
            self._segments.clear()

    def _begin(self) -> Segment:
        while True:
            path = self._folder / f"{uuid.uuid4().hex}{_SUFFIX}"
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
            # Before it is locked, another process may take it for one that was left behind.
            if _is_locked(descriptor, path):
                break
            os.close(descriptor)
        segment = Segment(path, descriptor)
        self._segments.append(segment)
        return segment

    def _remove(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        os.close(segment.descriptor)
        if segment in self._segments:
            self._segments.remove(segment)

    def _to_recover(self) -> Iterator[Segment]:
        """Own segments with refused lines, and those that no process holds."""
        with self._lock:
            if self._active.refused:
                self._active = self._begin()
            own = [each for each in self._segments if each.refused and not each.waiting]
            known = {each.path for each in self._segments}
        yield from own
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path in known:
                continue
            with suppress(FileNotFoundError):  # another process has just recovered it
                descriptor = os.open(path, os.O_RDWR)
                if _is_locked(descriptor, path):
                    yield Segment(path, descriptor)
                else:
                    os.close(descriptor)


def _is_locked(descriptor: int, path: Path) -> bool:
    """Lock a file; False where another process has it, or it is gone meanwhile."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _write_again(
    write: Callable[[Sequence[Exposure]], object], shown: Sequence[Exposure], where: str
) -> None:
    try:
        write(shown)
    except RequestIdReusedError as error:
        _log.warning("%s: %s", where, error)


def _line(shown: Sequence[Exposure]) -> bytes:
    rows = [[_plain(getattr(one, name)) for name in _FIELDS] for one in shown]
    content = orjson.dumps(rows)
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _read(path: Path) -> Iterator[list[Exposure]]:
    """One request after another; a last line that was cut short was acknowledged to nobody."""
    *whole, rest = path.read_bytes().split(b"\n")
    if rest:
        _log.warning("%s ends in the middle of a line, which nobody was answered with", path.name)
    for line in whole:
        content = line[_CHECKSUM + 1 :]
        if line[:_CHECKSUM] != b"%08x" % zlib.crc32(content):
            _log.error("%s holds a line that was altered; it is left out", path.name)
            continue
        rows = (dict(zip(_FIELDS, row, strict=True)) for row in orjson.loads(content))
        yield [Exposure(**row | {"prediction": row["prediction"].encode()}) for row in rows]
