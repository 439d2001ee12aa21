"""Many simulated experiments of one world, each looked at several times, on all cores.

A world, a rule and the days of the looks come in; what the product said at each look of each
experiment goes out as arrays. An experiment's traffic depends on its number alone, so the same runs
come out of any number of processes.
"""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.ab_traffic import Floats, World, draw
from bench.ab_views import p_values, verdict_of, view
from serving.experiments.decision_rule import DecisionRule

_SEED: Final = 1_000_000
_AT_ONCE: Final = 50
_MOST_PROCESSES: Final = 2
ACTED: Final = ("promote", "roll_back")


@dataclass(frozen=True)
class Study:
    """What is done with each experiment of a world.

    Attributes:
        world: the traffic.
        rule: by which it is judged, agreed beforehand.
        looks: days after the start.
        analyses: names of ``ab_views.ANALYSES``, also of each look.
    """

    world: World
    rule: DecisionRule
    looks: tuple[float, ...]
    analyses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runs:
    """What was said, (runs, looks) each.

    Attributes:
        decision: the verdicts' decisions.
        estimate: of the difference; NaN before there is an interval.
        low: lower ends; NaN before.
        high: upper ends; NaN before.
        p: by analysis.
    """

    decision: NDArray[np.str_]
    estimate: Floats
    low: Floats
    high: Floats
    p: dict[str, Floats]

    def acted(self) -> NDArray[np.bool_]:
        """(runs,) whether some look promoted or rolled back."""
        return np.asarray(np.isin(self.decision, ACTED).any(axis=-1))

    def ever(self, decision: str) -> float:
        """Share of the runs in which some look decided so."""
        return float((self.decision == decision).any(axis=-1).mean())

    def rejected(self, analysis: str, alpha: float) -> float:
        """Share of the runs in which an analysis is below alpha at some look."""
        return float((self.p[analysis] < alpha).any(axis=-1).mean())

    def rejected_last(self, analysis: str, alpha: float) -> float:
        """The same of the last look alone."""
        return float((self.p[analysis][:, -1] < alpha).mean())

    def covered(self, truth: float) -> float:
        """Share of the runs whose intervals hold the truth at every look that has one."""
        missed = (self.low > truth) | (self.high < truth)
        return float(1.0 - missed.any(axis=-1).mean())


def play(study: Study, numbers: Sequence[int]) -> Runs:
    """The experiments with these numbers, in this process."""
    decided: list[list[str]] = []
    ends: list[list[list[float]]] = []
    p: list[list[list[float]]] = []
    for number in numbers:
        traffic = draw(study.world, _SEED + number)
        seen = [view(traffic, day, study.rule) for day in study.looks]
        verdicts = [verdict_of(one, study.rule) for one in seen]
        decided.append([one.decision for one in verdicts])
        ends.append([[_or_nan(x) for x in (one.difference, one.low, one.high)] for one in verdicts])
        p.append([p_values(one, study.analyses) for one in seen])
    found = np.asarray(ends, dtype=np.float64)
    values = np.asarray(p, dtype=np.float64)
    return Runs(
        decision=np.asarray(decided, dtype=np.str_),
        estimate=found[:, :, 0],
        low=found[:, :, 1],
        high=found[:, :, 2],
        p={name: values[:, :, place] for place, name in enumerate(study.analyses)},
    )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def cores() -> int:
    """How many processes to simulate in: as many as this one may use, two at most."""
    return min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))


def pool() -> ProcessPoolExecutor:
    """Processes for ``simulate``; close it when all is simulated."""
    # Spawned: a fork of a process with threads, as numpy's, may hang.
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(cores(), mp_context=spawn, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Without it a worker whose parent is killed waits for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent, "only a worker has this to do"

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def simulate(study: Study, runs: int, executor: ProcessPoolExecutor | None = None) -> Runs:
    """Experiments 0 … runs - 1 of a study.

    Args:
        study: what is done with each.
        runs: how many, at least 1.
        executor: from ``pool``; None simulates in this process.
    """
    parts = [range(start, min(start + _AT_ONCE, runs)) for start in range(0, runs, _AT_ONCE)]
    if executor is None:
        return _joined([play(study, part) for part in parts])
    return _joined(list(executor.map(play, [study] * len(parts), parts)))


def _joined(parts: Sequence[Runs]) -> Runs:
    def stack(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(values, axis=0)

    return Runs(
        decision=stack([part.decision for part in parts]),
        estimate=stack([part.estimate for part in parts]),
        low=stack([part.low for part in parts]),
        high=stack([part.high for part in parts]),
        p={name: stack([part.p[name] for part in parts]) for name in parts[0].p},
    )
