"""Confidence sequences on traffic with known effects, looked at after every unit.

`measure` takes nothing but a way to say how far it is, and returns how often a sequence is wrong
(`false_positive_rate`, with what a z-test at every look does beside it, and `coverage`) and how
many units it takes (`sample_ratio_x`), by simulation with fixed seeds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.ab_figures import AbFigure
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.planning import sample_for, variance_of_proportions
from serving.experiments.inference.sequences import (
    UNBOUNDED,
    UNIT_RANGE,
    ConfidenceSequence,
    confidence_sequence,
)
from serving.experiments.inference.stopping import best_tuning, stopping_sample

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
ALPHA: Final = 0.05
BURN_IN: Final = 100
TUNED_FOR: Final = 2_000
"""As a rule has it by default (serving/experiments/verdict.py), the burn-in too."""
RUNS: Final = 10_000
UNITS: Final = 10_000
STOP_RUNS: Final = 2_000
RATE: Final = 0.80
LIFT: Final = 0.02
HORIZON: Final = 5
"""Times the fixed sample: where a run that found nothing ends."""
MOST_SAMPLES: Final = 1.6
SEED: Final = 20
_AT_ONCE: Final = 300_000
"""Units simulated at once, so that arrays stay in the processor's cache."""


@dataclass(frozen=True)
class Traffic:
    """What units do.

    Attributes:
        name: in reports.
        kind: outcomes of 0 and 1 with these rates, or lognormal latencies with these medians.
        control: the control's rate or median.
        challenger: the challenger's where it is another model; in an A/A run it is the control's.
        share: of units that meet the challenger.
        min_effective: that the sequence asks for.
    """

    name: str
    kind: Literal["rate", "latency"]
    control: float
    challenger: float
    share: float
    min_effective: float

    def effect(self, *, same: bool) -> float:
        """The true difference of means."""
        if same:
            return 0.0
        difference = self.challenger - self.control
        return difference if self.kind == "rate" else difference * float(np.exp(SIGMA**2 / 2))


SIGMA: Final = 0.8
"""Of latencies' logarithms: the slowest 1% take 6.4 times the median."""
TRAFFICS: Final = (
    Traffic("80% right, half the units", "rate", 0.80, 0.82, 0.5, 0.0),
    Traffic("90% right, a tenth of the units", "rate", 0.90, 0.88, 0.1, EFFECTIVE),
    Traffic("2% errors, a tenth of the units", "rate", 0.02, 0.03, 0.1, EFFECTIVE),
    Traffic("lognormal latency, half the units", "latency", 200.0, 210.0, 0.5, EFFECTIVE),
)


@dataclass(frozen=True)
class Wrong:
    """Of runs of one traffic, how many were wrong at some unit.

    Attributes:
        sequence: share of runs whose sequence ever left out the true difference.
        naive: the same of a z-test at every look, by the units until then.
    """

    sequence: float
    naive: dict[int, float]


def draw(
    traffic: Traffic, random: np.random.Generator, runs: int, units: int, *, same: bool
) -> tuple[Flags, Floats]:
    """Arms and outcomes, (runs, units) each."""
    on = random.random((runs, units), dtype=np.float32) < traffic.share
    level = np.where(on & (not same), traffic.challenger, traffic.control)
    if traffic.kind == "rate":
        return on, (random.random((runs, units)) < level).astype(np.float64)
    return on, level * np.exp(random.normal(0.0, SIGMA, (runs, units)))


def sequence_of(traffic: Traffic, on: Flags, outcome: Floats, tuned: int) -> ConfidenceSequence:
    """The product's sequence on this traffic."""
    rate = traffic.kind == "rate"
    return confidence_sequence(
        on,
        outcome,
        challenger_share=traffic.share,
        alpha=ALPHA,
        tuned_for_units=tuned,
        burn_in=BURN_IN,
        outcome_range=UNIT_RANGE if rate else UNBOUNDED,
        first_guess=None if rate else 250.0,
        min_effective=traffic.min_effective,
    )


def naive_outside(on: Flags, outcome: Floats, effect: float) -> Flags:
    """Where a z-test, taken for the only look, would refuse the true difference (runs, units)."""
    n = np.arange(1, on.shape[-1] + 1)
    ons = np.cumsum(on, axis=-1)
    offs = n - ons
    difference, variance = -effect * np.ones(on.shape), np.zeros(on.shape)
    for arm, count, sign in ((on, ons, 1.0), (~on, offs, -1.0)):
        seen = np.maximum(count, 1)
        mean = np.cumsum(arm * outcome, axis=-1) / seen
        squares = np.cumsum(arm * outcome**2, axis=-1) / seen
        difference += sign * mean
        variance += np.maximum(squares - mean**2, 0.0) / seen
    spoken = np.minimum(ons, offs) >= BURN_IN
    return np.asarray((np.abs(difference) > stats.norm.isf(ALPHA / 2) * np.sqrt(variance)) & spoken)


def _batches(runs: int, units: int) -> Iterator[int]:
    size = max(1, _AT_ONCE // units)
    for start in range(0, runs, size):
        yield min(size, runs - start)


def wrong_share(
    traffic: Traffic,
    *,
    same: bool,
    runs: int,
    units: int,
    tuned: int = TUNED_FOR,
    naive_at: tuple[int, ...] = (),
    seed: int = SEED,
) -> Wrong:
    """How often a sequence, and a z-test at each look, ever leave out the true difference."""
    random = np.random.default_rng(seed)
    effect = traffic.effect(same=same)
    missed, naive = 0, dict.fromkeys(naive_at, 0)
    for size in _batches(runs, units):
        on, outcome = draw(traffic, random, size, units, same=same)
        found = sequence_of(traffic, on, outcome, tuned)
        missed += int(((found.low > effect) | (found.high < effect)).any(axis=-1).sum())
        if naive_at:
            outside = naive_outside(on, outcome, effect)
            for until in naive_at:
                naive[until] += int(outside[:, :until].any(axis=-1).sum())
    return Wrong(missed / runs, {until: count / runs for until, count in naive.items()})


def stops(
    traffic: Traffic, *, runs: int, units: int, tuned: int, seed: int = SEED
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At which unit each run's sequence left out zero, and on which side.

    Returns:
        (runs,) units, the horizon where nothing was found; (runs,) 1 for better, -1 for worse, 0.
    """
    random = np.random.default_rng(seed)
    at, side = [], []
    for size in _batches(runs, units):
        found = sequence_of(traffic, *draw(traffic, random, size, units, same=False), tuned)
        out = (found.low > 0.0) | (found.high < 0.0)
        stopped, first = out.any(axis=-1), out.argmax(axis=-1)
        signs = np.sign(found.estimate[np.arange(size), first]).astype(np.int64)
        at.append(np.where(stopped, first + 1, units))
        side.append(np.where(stopped, signs, 0))
    return np.concatenate(at), np.concatenate(side)


def _levels(say: Callable[[str], None], runs: int, units: int) -> dict[str, AbFigure]:
    """False positives and coverage."""
    short = units // 5
    wrong: dict[tuple[str, bool], Wrong] = {}
    for traffic in TRAFFICS:
        for same in (True, False):
            watched = (short, units) if same and traffic is TRAFFICS[0] else ()
            found = wrong_share(traffic, same=same, runs=runs, units=units, naive_at=watched)
            wrong[traffic.name, same] = found
            what = "A/A" if same else f"difference {traffic.effect(same=False):+.3g}"
            say(f"{traffic.name}, {what}: wrong in {found.sequence:.2%} of {runs:,} runs")
    positives = {name: found.sequence for (name, same), found in wrong.items() if same}
    misses = {name: found.sequence for (name, same), found in wrong.items() if not same}
    coverage = 1.0 - max(found.sequence for found in wrong.values())
    naive = wrong[TRAFFICS[0].name, True].naive
    runs_of = (
        f"{runs:,} runs of {units:,} units, looked at after each unit from {BURN_IN} an arm on"
    )
    worst = max(positives.values())
    listed = "; ".join(f"{name} {share:.2%}" for name, share in positives.items())
    missed = "; ".join(f"{name} {share:.2%}" for name, share in misses.items())
    return {
        "false_positive_rate": AbFigure(
            worst,
            f"<= {ALPHA:g}",
            f"A/A, {runs_of}; two-sided {1 - ALPHA:.0%} sequence tuned for {TUNED_FOR:,} units; "
            f"the worst of: {listed}; seed {SEED}",
            worst <= ALPHA,
        ),
        "naive_false_positive_rate": AbFigure(
            naive[short],
            f"> {ALPHA:g}",
            f"z-test at {ALPHA:.0%} after each unit of the same A/A runs ({TRAFFICS[0].name}), "
            f"until {short:,} units; until {units:,} units {naive[units]:.2%}. No aim: it is what "
            "peeking costs",
            naive[short] > ALPHA,
        ),
        "coverage": AbFigure(
            coverage,
            f">= {1 - ALPHA:g}",
            f"share of {runs_of}, in which the sequence held the true difference at every unit; "
            f"the worst of the A/A runs and of true differences, missed in: {missed}; seed {SEED}",
            coverage >= 1 - ALPHA,
        ),
    }


def _samples(say: Callable[[str], None], runs: int) -> AbFigure:
    """Units at the stop, against the fixed sample."""
    traffic = Traffic("", "rate", RATE, RATE + LIFT, 0.5, 0.0)
    variance = variance_of_proportions(RATE, RATE + LIFT)
    fixed = sample_for(LIFT, variance, alpha=ALPHA, power=0.8).total
    horizon, tuned = round(HORIZON * fixed), best_tuning(LIFT, variance, alpha=ALPHA)
    forecast = stopping_sample(
        LIFT, variance, alpha=ALPHA, tuned_for_units=tuned, horizon_units=horizon
    )
    at, side = stops(traffic, runs=runs, units=horizon, tuned=tuned)
    ratio = float(at.mean() / fixed)
    say(f"stops after {ratio:.3f} times the fixed sample on average")
    error = float(at.std() / fixed / np.sqrt(runs))
    level = wrong_share(traffic, same=True, runs=runs, units=horizon, tuned=tuned).sequence
    say(f"the same sequence is wrong in {level:.2%} of A/A runs")
    by_fixed = float(((side > 0) & (at <= fixed)).mean())
    return AbFigure(
        ratio,
        f"<= {MOST_SAMPLES:g}",
        f"mean units at the stop, {runs:,} runs, true rates {RATE:.0%} and {RATE + LIFT:.0%}, half "
        f"the units each; fixed sample {fixed:,.0f} units (two-sided {ALPHA:.0%}, power 80%); "
        f"sequence two-sided, tuned for {tuned:,} units (best for this lift); standard error "
        f"{error:.3f}; p90 {np.quantile(at, 0.9) / fixed:.2f}; {np.mean(side == 0):.2%} of runs "
        f"found nothing and count with the horizon of {horizon:,} units; {np.mean(side < 0):.2%} "
        f"stopped on the wrong side; {by_fixed:.0%} had stopped rightly by the fixed sample; "
        f"forecast of the plan {forecast.mean / fixed:.2f}; the same sequence on {runs:,} A/A runs "
        f"until the horizon is wrong in {level:.2%}; seed {SEED}",
        ratio <= MOST_SAMPLES,
    )


def measure(
    say: Callable[[str], None], *, runs: int = RUNS, units: int = UNITS, stop_runs: int = STOP_RUNS
) -> dict[str, AbFigure]:
    """Figures of the confidence sequences, by simulation.

    Args:
        say: told how far it is.
        runs: of each traffic, with and without a difference.
        units: of each of these runs.
        stop_runs: runs until the stop.
    """
    return {**_levels(say, runs, units), "sample_ratio_x": _samples(say, stop_runs)}
