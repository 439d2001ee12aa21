"""Units from the archive: the arrays that ``decide`` reads, of millions of rows in little memory.

What goes in is an archive's folder, or one of several archives (retention.py); what comes out is
what ``ExperimentStore.exposures_with_outcomes`` would say of the same rows, without a Python object
per row: ten million exposures take less than 2 GB (`python -m bench.ab_analysis`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.experiments.archive_files import Archive
from serving.experiments.archive_rows import (
    Exposures,
    Outcomes,
    archives_in,
    event_ids_of,
    read_exposures,
    read_outcomes,
    sorted_by_event,
)
from serving.experiments.hashes import grouped
from serving.experiments.units import UnitOutcomes, last_closed_us, settling_us, window_us


@dataclass
class _Counted:
    """Per exposure (n,) the outcome that counts: whether there is one, its reward, its label."""

    known: NDArray[np.bool_]
    reward: NDArray[np.float64]
    labelled: NDArray[np.bool_]


def units_of_archive(
    folder: Path,
    experiment_id: str,
    deployment_id: str,
    *,
    window_days: float | None = None,
    settling_days: float = 0.0,
    closed_by_us: int | None = None,
) -> UnitOutcomes:
    """Per unit and arm: answers, outcomes and mean reward, in order of first answer.

    Of several outcomes of an answer the latest counts, also where they lie in several archives; a
    row that two archives hold is one.

    Args:
        folder: an archive, or the folder that ``retain`` keeps archives in.
        experiment_id: of the deployment.
        deployment_id: of the deployment.
        window_days: outcomes later than this after their exposure do not count; None counts all.
        settling_days: answers sooner than this after their unit's first one do not count.
        closed_by_us: answers whose window was open at this moment do not count; None counts all.

    Raises:
        ExperimentError: there is no archive, or it was altered; days are out of range.
    """
    window = window_us(window_days)
    settling, last = settling_us(settling_days), last_closed_us(window, closed_by_us)
    archives = archives_in(folder)
    shown = read_exposures(archives, experiment_id, deployment_id)
    if settling:
        shown.keep(_settled(shown, settling))
    if last is not None:
        shown.keep(shown.at_us <= last)
    order = sorted_by_event(shown)
    said = read_outcomes(archives, shown, order, window)
    # Millions of rows: what is no longer needed makes room for what comes.
    shown.event_id = np.empty(0, dtype=shown.event_id.dtype)
    del order
    counted = _latest(archives, said, len(shown.unit))
    del said
    return _per_unit(shown, counted)


def _settled(shown: Exposures, settling: int) -> NDArray[np.bool_]:
    """(n,) whether an answer came so many microseconds after its unit's first one, or later."""
    order, begins = grouped(shown.unit)
    starts = np.flatnonzero(begins)
    first = _reduced(np.minimum, shown.at_us, order, starts, np.int64)
    settled = np.empty(len(order), dtype=np.bool_)
    settled[order] = shown.at_us[order] >= first[np.cumsum(begins) - 1] + settling
    return settled


def _latest(archives: Sequence[Archive], said: Outcomes, exposures: int) -> _Counted:
    """Of each exposure's outcomes the latest; of two of one moment the one of the higher id."""
    count = np.bincount(said.exposure, minlength=exposures)
    counted = _Counted(
        known=count > 0,
        reward=np.zeros(exposures, dtype=np.float64),
        labelled=np.zeros(exposures, dtype=np.bool_),
    )
    several = np.flatnonzero(count[said.exposure] > 1)
    several = several[np.lexsort((said.at_us[several], said.exposure[several]))]
    exposure, at_us = said.exposure[several], said.at_us[several]
    tied = (exposure[1:] == exposure[:-1]) & (at_us[1:] == at_us[:-1])
    if tied.any():
        members = np.union1d(np.flatnonzero(tied), np.flatnonzero(tied) + 1)
        ids = event_ids_of(archives, said.row[several[members]])
        by_id = np.lexsort((ids, at_us[members], exposure[members]))
        several[members] = several[members][by_id]
    for rows in (np.flatnonzero(count[said.exposure] == 1), several):
        # Where an exposure stands several times, the last assignment stays.
        counted.reward[said.exposure[rows]] = said.reward[rows]
        counted.labelled[said.exposure[rows]] = said.labelled[rows]
    return counted


def _per_unit(shown: Exposures, counted: _Counted) -> UnitOutcomes:
    """The entries, in the order of their first answers."""
    order, begins = _by_unit_and_arm(shown)
    starts = np.flatnonzero(begins)
    # Of equal first answers the lower unit comes first, as the store's query has it: the entries
    # are in the order of units by now, and a stable sort leaves them so.
    entries = np.argsort(_reduced(np.minimum, shown.at_us, order, starts, np.int64), kind="stable")
    total = _reduced(np.add, counted.reward, order, starts, np.float64)[entries]
    outcomes = _reduced(np.add, counted.known, order, starts, np.int64)[entries]
    labelled = _reduced(np.add, counted.labelled, order, starts, np.int64)[entries]
    failed = _reduced(np.add, shown.failed, order, starts, np.int64)[entries]
    answers = np.diff(starts, append=len(order))[entries].astype(np.int64, copy=False)
    answers -= failed
    members = order[starts][entries]
    # Millions of rows: what is no longer needed makes room for what comes.
    del order, begins, starts, entries
    reward = np.full(len(members), np.nan)
    np.divide(total, outcomes, out=reward, where=outcomes > 0)
    # Those with an answer that counts: of some arm there may be only others.
    arms = tuple(sorted(shown.arms[place] for place in np.unique(shown.arm).tolist()))
    places = np.array([(*arms, name).index(name) for name in shown.arms], dtype=np.uint8)
    return UnitOutcomes(
        unit=np.take(shown.unit, members),
        arm=places[shown.arm[members]] if arms else shown.arm,
        arms=arms,
        reward=reward,
        exposures=answers,
        outcomes=outcomes,
        labelled=labelled,
        failed=failed,
        versions={
            name: tuple(sorted(version for arm, version in shown.versions if arm == name))
            for name in arms
        },
    )


def _by_unit_and_arm(shown: Exposures) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The order of units, and within a unit of arms' names; True where another entry begins."""
    order, begins = grouped(shown.unit)
    rank = np.argsort(np.argsort(np.array(shown.arms or [""]))).astype(np.uint8)
    key = np.cumsum(begins, dtype=np.int64)
    key *= len(rank)
    key += rank[shown.arm[order]]
    if (key[1:] < key[:-1]).any():  # a unit has met two arms, or its arms came mixed
        again = np.argsort(key, kind="stable")
        key, order = key[again], order[again]
    begins[1:] = key[1:] != key[:-1]
    return order, begins


def _reduced(
    reduce: np.ufunc,
    values: NDArray[Any],
    order: NDArray[np.intp],
    starts: NDArray[np.intp],
    kind: type[np.generic],
) -> NDArray[Any]:
    """One value a group of ``values[order]``, of groups that begin at ``starts``."""
    if not len(starts):  # reduceat takes no empty array
        return np.empty(0, dtype=kind)
    return np.asarray(reduce.reduceat(np.take(values, order), starts, dtype=kind))
