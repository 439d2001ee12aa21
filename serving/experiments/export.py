"""Export of the experiment store: exposures and their outcomes to an archive's Parquet files.

What goes in is the store's address; what comes out is a sealed folder (archive_files.py), from one
snapshot of the database, read in batches: memory does not grow with the store, and a gateway goes
on writing meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.archive_files import (
    EXPOSURES,
    EXPOSURES_FILE,
    OUTCOMES,
    OUTCOMES_FILE,
    Archive,
    exposure_batch,
    outcome_batch,
    prepare,
    seal,
    write_whole,
)
from serving.experiments.database import open_database, reported
from serving.experiments.tables import exposures, outcomes

OnRows = Callable[[str, int], None]
"""Told which table, and how many rows of it are done so far."""
_BATCH_ROWS: Final = 50_000
_MOST_US: Final = (1 << 63) - 1


def export(
    url: str,
    out: Path,
    *,
    before_us: int | None = None,
    experiment_id: str | None = None,
    on_rows: OnRows | None = None,
) -> Archive:
    """Write what the store holds to a folder; the store stays as it is.

    Outcomes go with their exposures, whatever their own age. An outcome whose exposure is not in
    the store, because it was archived before, goes by its own age, and only where no experiment is
    named: without the exposure nobody knows whose it is.

    Args:
        url: of the store.
        out: a new or empty folder, or one that an export left unfinished.
        before_us: only exposures of before, in microseconds since 1970; None takes all.
        experiment_id: only its exposures; None takes all.
        on_rows: told of progress.

    Raises:
        ExperimentError: the store cannot be read, the folder is taken or cannot be written, or a
            row holds something else than a hash where a hash belongs.
    """
    if before_us is not None and not -_MOST_US <= before_us <= _MOST_US:
        raise ExperimentError(
            f"before_us={before_us!r} is no time; give microseconds since 1970, or None for all"
        )
    engine = open_database(url, must_exist=True)
    try:
        prepare(out)
        with reported(engine, "export from"), _snapshot(engine) as connection:
            return _export(connection, out, before_us, experiment_id, on_rows)
    finally:
        engine.dispose()


@contextmanager
def _snapshot(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection whose statements all see the store of one moment, and block no writer."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(  # noqa: PLW2901  # the same, set up
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        else:
            # Python's sqlite3 begins a transaction for writing alone.
            connection.exec_driver_sql("BEGIN")
        yield connection


@dataclass
class _Seen:
    """What has gone by of a table."""

    rows: int = 0
    orphans: int = 0
    first_us: int | None = None
    last_us: int | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        times = batch.column("created_at").cast(pa.int64()).to_numpy()
        first, last = int(times.min()), int(times.max())
        self.rows += len(times)
        self.first_us = first if self.first_us is None else min(first, self.first_us)
        self.last_us = last if self.last_us is None else max(last, self.last_us)
        if "orphan" in batch.schema.names:
            self.orphans += batch.column("orphan").true_count


def _export(
    connection: sa.Connection,
    out: Path,
    before_us: int | None,
    experiment_id: str | None,
    on_rows: OnRows | None,
) -> Archive:
    shown, said = _Seen(), _Seen()

    def batches(
        query: sa.Select[Any], batch_of: Callable[[Sequence[Any]], pa.RecordBatch], seen: _Seen
    ) -> Iterator[pa.RecordBatch]:
        result = connection.execute(query, execution_options={"yield_per": _BATCH_ROWS})
        for rows in result.partitions():
            batch = batch_of(rows)
            seen.add(batch)
            yield batch
            if on_rows:
                on_rows("exposures" if seen is shown else "outcomes", seen.rows)

    of_exposures = batches(_exposures(before_us, experiment_id), exposure_batch, shown)
    write_whole(out / EXPOSURES_FILE, EXPOSURES, of_exposures)
    of_outcomes = batches(_outcomes(before_us, experiment_id), outcome_batch, said)
    write_whole(out / OUTCOMES_FILE, OUTCOMES, of_outcomes)
    facts = {
        "rows": {"exposures": shown.rows, "outcomes": said.rows, "orphans": said.orphans},
        "from": _time(shown.first_us),
        "to": _time(shown.last_us),
        "before": _time(before_us),
        "experiment_id": experiment_id,
        "last_exposure_us": shown.last_us,
        "last_outcome_us": said.last_us,
    }
    return seal(out, facts)


def _exposures(before_us: int | None, experiment_id: str | None) -> sa.Select[Any]:
    columns = [
        sa.cast(column, sa.Text) if column is exposures.c.prediction else column
        for column in exposures.c
    ]
    query = sa.select(*columns)
    if before_us is not None:
        query = query.where(exposures.c.created_at_us < before_us)
    if experiment_id is not None:
        query = query.where(exposures.c.experiment_id == experiment_id)
    return query


def _outcomes(before_us: int | None, experiment_id: str | None) -> sa.Select[Any]:
    orphan = exposures.c.event_id.is_(None)
    query = sa.select(
        outcomes.c.event_id,
        outcomes.c.request_id,
        outcomes.c.item,
        outcomes.c.metric,
        outcomes.c.reward,
        sa.cast(outcomes.c.label, sa.Text),
        outcomes.c.created_at_us,
        orphan,
    ).select_from(
        outcomes.outerjoin(
            exposures,
            (exposures.c.request_id == outcomes.c.request_id)
            & (exposures.c.item == outcomes.c.item),
        )
    )
    if before_us is not None:
        age = sa.case((orphan, outcomes.c.created_at_us), else_=exposures.c.created_at_us)
        query = query.where(age < before_us)
    if experiment_id is not None:
        query = query.where(exposures.c.experiment_id == experiment_id)
    return query


def _time(us: int | None) -> str | None:
    """ISO 8601; numpy's, because it knows every year that a wrong clock may have said."""
    return None if us is None else f"{np.datetime64(us, 'us')}Z"
