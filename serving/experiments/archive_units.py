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

from serving.deployment import ARMS
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
from serving.experiments.units import UnitOutcomes, window_us


@dataclass
class _Counted:
    """Per exposure (n,) the outcome that counts: whether there is one, its reward, its label."""

    known: NDArray[np.bool_]
    reward: NDArray[np.float64]
    labelled: NDArray[np.bool_]


def units_of_archive(
    folder: Path, experiment_id: str, deployment_id: str, *, window_days: float | None = None
) -> UnitOutcomes:
    """Per unit and arm: answers, outcomes and mean reward, in order of first answer.

    Of several outcomes of an answer the latest counts, also where they lie in several archives; a
    row that two archives hold is one.

    Args:
        folder: an archive, or the folder that ``retain`` keeps archives in.
        experiment_id: of the deployment.
        deployment_id: of the deployment.
        window_days: outcomes later than this after their exposure do not count; None counts all.

    Raises:
        ExperimentError: there is no archive, or it was altered; the window is wrong.
    """
    window = window_us(window_days)
    archives = archives_in(folder)
    shown = read_exposures(archives, experiment_id, deployment_id)
    order = sorted_by_event(shown)
    said = read_outcomes(archives, shown, order, window)
    # From here on event ids are not needed: a fifth of the memory.
    shown.event_id, order = shown.event_id[:0], order[:0]
    return _per_unit(shown, _latest(archives, said, len(shown.unit)))


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
    versions = {
        name: tuple(sorted(version for arm, version in shown.versions if arm == name))
        for name in ARMS
    }
    order, begins = grouped(shown.unit)
    order, begins = _by_arm(shown, order, begins)
    starts = np.flatnonzero(begins)
    # Of equal first answers the lower unit comes first, as the store's query has it: the entries
    # are in the order of units by now, and a stable sort leaves them so.
    first_us = _reduced(np.minimum, shown.at_us[order], starts)
    entries = np.argsort(first_us, kind="stable")
    answers = np.diff(starts, append=len(order))[entries]
    known = counted.known[order]
    outcomes = _reduced(np.add, known.astype(np.int64), starts)[entries]
    total = _reduced(np.add, counted.reward[order] * known, starts)[entries]
    labelled = _reduced(np.add, counted.labelled[order].astype(np.int64), starts)[entries]
    members = order[starts[entries]]
    reward = np.full(len(entries), np.nan)
    np.divide(total, outcomes, out=reward, where=outcomes > 0)
    is_challenger = np.array([name == "challenger" for name in shown.arms] or [False])
    return UnitOutcomes(
        unit=shown.unit[members],
        challenger=is_challenger[shown.arm[members]],
        reward=reward,
        exposures=answers.astype(np.int64),
        outcomes=outcomes,
        labelled=labelled,
        versions=versions,
    )


def _by_arm(
    shown: Exposures, order: NDArray[np.intp], begins: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Within each unit by arm, in the order of their names; each begins an entry."""
    rank = np.argsort(np.argsort(np.array(shown.arms or [""])))
    key = (np.cumsum(begins) - 1) * max(len(shown.arms), 1) + rank[shown.arm[order]]
    again = np.argsort(key, kind="stable")
    key, order = key[again], order[again]
    begins = np.ones(len(key), dtype=np.bool_)
    begins[1:] = key[1:] != key[:-1]
    return order, begins


def _reduced(reduce: np.ufunc, values: Any, starts: NDArray[np.intp]) -> Any:
    """One value a group, of groups that begin at ``starts``; reduceat takes no empty array."""
    return reduce.reduceat(values, starts) if len(starts) else values[:0]
