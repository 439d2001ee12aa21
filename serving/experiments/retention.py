"""Retention: what is older than so many days leaves the store for an archive, and nothing is lost.

    out/20260901T000000.000000Z.moving/   exported; its rows may still be in the store, too
    out/20260901T000000.000000Z/          an archive: its rows have left the store

Each run first ends what a killed one left: a sealed ``.moving`` folder's rows are removed from the
store, one that was cut short is thrown away. Only then it exports what is old by now, reads that
back, removes exactly those rows, and renames the folder.
"""

import contextlib
import fcntl
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from data.errors import ExperimentError
from data.manifest import MANIFEST_NAME
from serving.experiments.archive_files import (
    EXPOSURES_FILE,
    OUTCOMES_FILE,
    Archive,
    fixed_hashes,
    make_folder,
    outcome_event_ids,
    read_archive,
    read_columns,
    sync_folder,
)
from serving.experiments.database import open_database, reported
from serving.experiments.export import OnRows, export
from serving.experiments.hashes import hex_of
from serving.experiments.tables import exposures, outcomes

MOVING: Final = ".moving"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_DAYS: Final = 36_500
_ROWS_AT_ONCE: Final = 2_000
_LEAST_PAUSE_S: Final = 0.002


def retain(
    url: str,
    out: Path,
    *,
    older_than_days: float,
    now_us: int | None = None,
    on_rows: OnRows | None = None,
) -> tuple[Archive, ...]:
    """Move exposures that are older, and their outcomes, from the store to an archive.

    It may be killed at any moment and run again: a row is removed only after it was read back from
    a sealed archive, and no row comes into two archives of ``out``. An outcome that is written
    while its exposure leaves stays in the store, and goes by its own age with a later run, as an
    orphan that carries its exposure's event id.

    Choose the days longer than feedback may take and an experiment may run. A request id is
    protected from being used again only while its exposure is in the store; feedback on an answer
    that has left is refused as unknown; and the store's own analysis sees only what is left in it
    (``units_of_archive`` reads the rest). SQLite fills the freed pages again, and does not make
    its file smaller.

    Args:
        url: of the store.
        out: folder of the archives; one for each run that found something.
        older_than_days: what is older goes.
        now_us: microseconds since 1970 that count as now; the clock without.
        on_rows: told of progress.

    Returns:
        The archives whose rows this run removed: those of killed runs first. None where nothing
        was old enough.

    Raises:
        ExperimentError: the store refuses, the folder cannot be written or holds something else,
            another run is at work there, or an archive is not what was written. The store still
            has whatever is not safe in an archive.
    """
    before = _cutoff(older_than_days, now_us)
    engine = open_database(url, must_exist=True)
    try:
        with _alone(out):
            ended = [_remove(engine, folder, on_rows) for folder in _left_by_killed_runs(out)]
            folder = _free_name(out, before)
            archive = export(url, folder, before_us=_us(before), on_rows=on_rows)
            if archive.exposures or archive.outcomes:
                ended.append(_remove(engine, folder, on_rows))
            else:
                _throw_away(folder)
            return tuple(ended)
    except OSError as error:
        raise ExperimentError(
            f"cannot keep archives in {str(out)!r}: {error.strerror or error}; free space or name "
            "another folder, then run it again (nothing is lost)"
        ) from error
    finally:
        engine.dispose()


def _cutoff(days: float, now_us: int | None) -> datetime:
    if not 0.0 < days <= _MOST_DAYS:  # NaN is neither
        raise ExperimentError(
            f"older_than_days={days!r}; give more than 0 and at most {_MOST_DAYS!r} days"
        )
    try:
        now = datetime.now(UTC) if now_us is None else _EPOCH + timedelta(microseconds=now_us)
        return now - timedelta(days=days)
    except OverflowError as error:
        raise ExperimentError(
            f"now_us={now_us!r} less {days!r} days is before the year 1 or after 9999; give "
            "microseconds since 1970"
        ) from error


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two runs in one folder would each take the other's for a killed one."""
    if (out / MANIFEST_NAME).exists():
        raise ExperimentError(
            f"{str(out)!r} is one archive; name the folder that archives are to lie in"
        )
    make_folder(out)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExperimentError(
                f"another run is at work in {str(out)!r}; wait until it has ended"
            ) from error
        yield


def _left_by_killed_runs(out: Path) -> list[Path]:
    """Sealed folders whose rows may still be in the store; what was cut short is thrown away."""
    sealed = []
    for folder in sorted(out.glob(f"*{MOVING}")):
        if (folder / MANIFEST_NAME).exists():
            sealed.append(folder)
        else:
            _throw_away(folder)
    return sealed


def _free_name(out: Path, before: datetime) -> Path:
    stem, number = before.strftime("%Y%m%dT%H%M%S.%fZ"), 1
    name = stem
    while (out / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return out / f"{name}{MOVING}"


def _throw_away(folder: Path) -> None:
    """Only what an export makes: anything else in the folder keeps it, and is an error."""
    # The manifest first: a folder half thrown away must not pass for a sealed one.
    for name in (MANIFEST_NAME, EXPOSURES_FILE, OUTCOMES_FILE):
        (folder / name).unlink(missing_ok=True)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    folder.rmdir()


def _remove(engine: sa.Engine, folder: Path, on_rows: OnRows | None) -> Archive:
    """Read a sealed archive back, remove its rows from the store, and give it its last name."""
    archive = read_archive(folder)
    files = (
        (exposures, EXPOSURES_FILE, archive.exposures, archive.last_exposure_us),
        (outcomes, OUTCOMES_FILE, archive.outcomes, archive.last_outcome_us),
    )
    for table, name, rows, _ in files:
        found = sum(len(ids) for ids in _event_ids(folder / name))
        if found != rows:
            raise ExperimentError(
                f"{str(folder / name)!r} gives back {found!r} event ids of {rows!r} {table.name}; "
                "nothing of it was removed from the store: move the folder away and run it again"
            )
    # Exposures first: without them, outcomes count for nothing, while exposures alone would look
    # like answers whose outcomes were lost.
    with reported(engine, "move rows out of"):
        for table, name, _, last_us in files:
            _remove_rows(engine, table, folder / name, last_us, on_rows)
    final = folder.with_name(folder.name.removesuffix(MOVING))
    folder.rename(final)
    sync_folder(final.parent)
    return Archive(**(vars(archive) | {"folder": final}))


def _remove_rows(
    engine: sa.Engine, table: sa.Table, path: Path, last_us: int | None, on_rows: OnRows | None
) -> None:
    """Delete rows in short transactions, with room between them for a gateway that writes."""
    done = 0
    for ids in _event_ids(path):
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            some = ids[start : start + _ROWS_AT_ONCE]
            began = time.monotonic()
            with engine.begin() as connection:
                # A row that came under the same event id after the export is a younger one.
                connection.execute(
                    table.delete().where(
                        table.c.event_id.in_(some), table.c.created_at_us <= last_us
                    )
                )
            done += len(some)
            if on_rows:
                on_rows(f"removed {table.name}", done)
            time.sleep(max(time.monotonic() - began, _LEAST_PAUSE_S))


def _event_ids(path: Path) -> Iterator[Sequence[str]]:
    """The event ids of a file as the store has them, a list per row group."""
    if path.name == EXPOSURES_FILE:
        for batch in read_columns(path, ["event_id"]):
            yield hex_of(fixed_hashes(batch.column("event_id")))
        return
    for batch in read_columns(path, ["event_id", "event_key"]):
        yield outcome_event_ids(batch)
