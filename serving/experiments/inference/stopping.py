"""When a confidence sequence that is looked at after every unit will have found the difference.

The true difference, the variance per unit (planning.py) and the sequence's settings come in; the
units at the stop, by simulation, and the best ``tuned_for_units`` go out.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import best_rho, squared_boundary
from serving.experiments.inference.levels import Alternative, Floats
from serving.experiments.inference.planning import sample_for, shifted

_LOOKS: Final = 2_000
_OVERSHOOT: Final = 0.5826
"""Siegmund, "Sequential Analysis" (1985), chapter 10: a walk seen at steps of s standard deviations
crosses like a continuous one would cross a bound 0.5826 s higher."""
_TUNINGS: Final[tuple[float, ...]] = tuple(0.1 * 40.0 ** (step / 23.0) for step in range(24))
"""Times the fixed sample at 80% power: what is tried."""
_HORIZON: Final = 5.0


@dataclass(frozen=True)
class StoppingSample:
    """Units of the whole experiment when the sequence stops; without a stop, the horizon.

    Attributes:
        mean: over runs.
        p90: nine of ten runs have stopped by then, or reached the horizon.
        stopped: share of runs that stopped before the horizon.
        wrong: share of runs that stopped on the side where the truth is not.
    """

    mean: float
    p90: float
    stopped: float
    wrong: float


def stopping_sample(
    difference: float,
    variance: float,
    *,
    alpha: float = 0.05,
    tuned_for_units: int,
    horizon_units: int,
    silent_units: int = 0,
    alternative: Alternative = "two-sided",
    margin: float = 0.0,
    runs: int = 4_000,
    seed: int = 0,
) -> StoppingSample:
    """Units at which the sequence of ``confidence_sequence`` will exclude "no difference".

    Pseudo-outcomes are taken as normal, with their limiting variance: a Brownian motion with drift.

    Args:
        difference: true difference, challenger minus control.
        variance: per unit, see planning.py.
        alpha: 1 - the level of the sequence.
        tuned_for_units: where the sequence is narrowest.
        horizon_units: where the experiment ends, found or not.
        silent_units: units of the whole experiment in the burn-in.
        alternative: that the sequence is for.
        margin: loss that is accepted (one-sided only).
        runs: simulated experiments.
        seed: of the simulation.

    Raises:
        ExperimentError: an argument is out of range.
    """
    shift = shifted(difference, margin, alternative)
    paths = _paths(shift, variance, horizon_units, runs=runs, seed=seed)
    rho = best_rho(tuned_for_units, alpha, alternative)
    return _stopped(
        paths,
        rho=rho,
        alpha=alpha,
        alternative=alternative,
        horizon=horizon_units,
        silent_units=silent_units,
        upward=shift > 0.0,
    )


def best_tuning(
    difference: float,
    variance: float,
    *,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    margin: float = 0.0,
    runs: int = 2_000,
    seed: int = 0,
) -> int:
    """The ``tuned_for_units`` with which the sequence stops soonest on average.

    Near the optimum the mean hardly moves, so that a plan that is off by half costs some percent.

    Raises:
        ExperimentError: an argument is out of range.
    """
    shift = shifted(difference, margin, alternative)
    power = max(0.8, (1.0 + alpha) / 2.0)
    fixed = sample_for(shift, variance, alpha=alpha, power=power, alternative=alternative).total
    horizon = max(2, round(_HORIZON * fixed))
    paths = _paths(shift, variance, horizon, runs=runs, seed=seed)
    tunings = [max(1, round(fixed * tuning)) for tuning in _TUNINGS]
    means = [
        _stopped(
            paths,
            rho=best_rho(units, alpha, alternative),
            alpha=alpha,
            alternative=alternative,
            horizon=horizon,
            silent_units=0,
            upward=shift > 0.0,
        ).mean
        for units in tunings
    ]
    return tunings[means.index(min(means))]


def _paths(shift: float, variance: float, horizon: int, *, runs: int, seed: int) -> Floats:
    """Standardised sums (runs, looks) at evenly spaced looks up to the horizon."""
    if not 0.0 < variance < np.inf:
        raise ExperimentError(f"variance={variance!r}; give a finite number above 0")
    if horizon < 1 or runs < 1:
        raise ExperimentError(f"horizon_units={horizon!r} and runs={runs!r}; give at least 1")
    looks = min(_LOOKS, horizon)
    step = horizon / looks
    random = np.random.default_rng(seed)
    drift = shift * step / np.sqrt(variance)
    return np.cumsum(random.normal(drift, np.sqrt(step), (runs, looks)), axis=-1)


def _stopped(
    paths: Floats,
    *,
    rho: float,
    alpha: float,
    alternative: Alternative,
    horizon: int,
    silent_units: int,
    upward: bool,
) -> StoppingSample:
    looks = paths.shape[-1]
    step = horizon / looks
    n = step * np.arange(1, looks + 1)
    bound = np.sqrt(n * squared_boundary(n * np.float64(rho**2), alpha, alternative))
    # Between looks the walk still steps once per unit; the difference of the two is corrected.
    bound -= _OVERSHOOT * (np.sqrt(step) - 1.0)
    above = paths > bound if alternative != "less" else np.zeros(paths.shape, dtype=np.bool_)
    below = paths < -bound if alternative != "greater" else np.zeros(paths.shape, dtype=np.bool_)
    hit = (above | below) & (n >= silent_units)
    stopped = hit.any(axis=-1)
    first = hit.argmax(axis=-1)
    units = np.where(stopped, n[first], float(horizon))
    right = (paths[np.arange(len(paths)), first] > 0.0) == upward
    return StoppingSample(
        mean=float(units.mean()),
        p90=float(np.quantile(units, 0.9)),
        stopped=float(stopped.mean()),
        wrong=float((stopped & ~right).mean()),
    )
