"""Plots of `make ab-sim` (SVG): what peeking does, one sequence over time, and when runs stop.

ab_world_plots.py draws those of the worlds.
"""

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from bench.ab_sequences import (
    ALPHA,
    BURN_IN,
    LIFT,
    RATE,
    SEED,
    TRAFFICS,
    TUNED_FOR,
    UNITS,
    draw,
    naive_outside,
    sequence_of,
    stops,
)
from bench.ab_world_plots import novelty_plot, worlds_plot
from serving.experiments.inference.planning import sample_for, variance_of_proportions
from serving.experiments.inference.stopping import best_tuning

_BLUE: Final = "#1d4ed8"
_ORANGE: Final = "#c2410c"
_GREY: Final = "#64748b"
_RUNS: Final = 400
_SHOWN: Final = 3.0


def _save(figure: Figure, path: Path) -> str:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path)
    return path.name


def peeking_plot(path: Path, *, runs: int = _RUNS, units: int = UNITS) -> str:
    """Share of A/A runs that were wrong by each unit: the sequence and a z-test at every look."""
    traffic = TRAFFICS[0]
    random = np.random.default_rng(SEED)
    wrong = {"z-test at every look": np.zeros(units), "confidence sequence": np.zeros(units)}
    for _ in range(runs // 20):
        on, outcome = draw(traffic, random, 20, units, same=True)
        found = sequence_of(traffic, on, outcome, TUNED_FOR)
        outside = (naive_outside(on, outcome, 0.0), (found.low > 0.0) | (found.high < 0.0))
        for name, out in zip(wrong, outside, strict=True):
            wrong[name] += np.logical_or.accumulate(out, axis=-1).sum(axis=0)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    n = np.arange(1, units + 1)
    for (name, count), colour in zip(wrong.items(), (_ORANGE, _BLUE), strict=True):
        axes.plot(n, 100 * count / (runs // 20 * 20), color=colour, label=name)
    axes.axhline(100 * ALPHA, color=_GREY, linestyle="--", label=f"level, {ALPHA:.0%}")
    axes.set(
        title=f"{runs} A/A runs, {traffic.name}, looked at after every unit",
        xlabel="units",
        ylabel="runs that were wrong by then, %",
        xscale="log",
        xlim=(2 * BURN_IN, units),
    )
    ticks = [tick for tick in (200, 500, 1_000, 2_000, 5_000, 10_000) if tick <= units]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xticks([], minor=True)
    return _save(figure, path)


def timeline_plot(path: Path, *, units: int = 2 * UNITS) -> str:
    """One run with a true lift: the sequence, and the interval that one look would have."""
    traffic = TRAFFICS[0]
    effect = traffic.effect(same=False)
    on, outcome = draw(traffic, np.random.default_rng(SEED), 1, units, same=False)
    variance = variance_of_proportions(traffic.control, traffic.challenger)
    found = sequence_of(traffic, on, outcome, best_tuning(effect, variance, alpha=ALPHA))
    estimate = found.estimate[0]
    once = stats.norm.isf(ALPHA / 2) * np.sqrt(variance / found.n)
    said = found.low[0] > -1.0
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    n, low, high = found.n[said], found.low[0][said], found.high[0][said]
    axes.fill_between(n, low, high, color=_BLUE, alpha=0.2, label="confidence sequence, 95%")
    for sign, label in ((-1, "interval of one look"), (1, None)):
        ends = (estimate + sign * once)[said]
        axes.plot(n, ends, color=_ORANGE, linewidth=0.8, label=label)
    axes.plot(n, estimate[said], color=_BLUE, label="estimate")
    axes.axhline(effect, color=_GREY, linestyle="--", label="true difference")
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set(
        title=f"one run, true difference {effect:+.2f}",
        xlabel="units",
        ylabel="challenger minus control",
        ylim=(effect - 0.1, effect + 0.1),
    )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    return _save(figure, path)


def stopping_plot(path: Path, *, runs: int = _RUNS) -> str:
    """Share of runs with a true lift that have stopped, by units over the fixed sample."""
    variance = variance_of_proportions(RATE, RATE + LIFT)
    fixed = sample_for(LIFT, variance, alpha=ALPHA).total
    tuned = best_tuning(LIFT, variance, alpha=ALPHA)
    at, side = stops(TRAFFICS[0], runs=runs, units=round(_SHOWN * fixed), tuned=tuned)
    # Runs that found nothing stop somewhere to the right of the plot.
    shown = np.where(side == 0, 2 * _SHOWN, at / fixed)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.ecdf(shown, color=_BLUE, label="stopped")
    axes.axvline(1.0, color=_ORANGE, linestyle="--", label="fixed sample, power 80%")
    axes.set(
        title=f"{runs} runs with a true lift of {100 * LIFT:.0f} points",
        xlabel="units, in fixed samples",
        ylabel="share of runs",
        xlim=(0.0, _SHOWN),
    )
    return _save(figure, path)


def write_plots(folder: Path) -> list[str]:
    """Write every plot; returns the files' names."""
    return [
        peeking_plot(folder / "ab_peeking.svg"),
        timeline_plot(folder / "ab_timeline.svg"),
        stopping_plot(folder / "ab_stopping.svg"),
        worlds_plot(folder / "ab_worlds.svg"),
        novelty_plot(folder / "ab_novelty.svg"),
    ]
