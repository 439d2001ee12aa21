"""Plots of the worlds (SVG): who is wrong by which day, and what novelty does to an estimate.

Drawn from some tens of experiments of their own, so that the plots need no figures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure

from bench.ab_novelty_worlds import NOVELTY, PRIMACY, SETTLING_DAYS
from bench.ab_runs import ACTED, Runs, Study, play
from bench.ab_traffic import Floats
from bench.ab_unit_worlds import BOTS, CLUSTERED
from bench.ab_views import ALPHA, MOST_ANSWERS
from bench.ab_world_figures import RULE
from serving.experiments.decision_rule import DecisionRule

_BLUE: Final = "#1d4ed8"
_ORANGE: Final = "#c2410c"
_GREEN: Final = "#15803d"
_GREY: Final = "#64748b"
_RUNS: Final = 60


def _days(last: float) -> tuple[float, ...]:
    return tuple(np.arange(1.0, last + 1.0, 2.0).tolist())


def _wrong_by(runs: Runs, analysis: str | None) -> Floats:
    """(looks,) percent of A/A runs that were wrong by each look; None is the verdict."""
    wrong = np.isin(runs.decision, ACTED) if analysis is None else runs.p[analysis] < ALPHA
    return np.asarray(100.0 * np.logical_or.accumulate(wrong, axis=-1).mean(axis=0))


def worlds_plot(path: Path, *, runs: int = _RUNS) -> str:
    """Of A/A experiments with busy users, and with bots: who was wrong by each day."""
    lines: Mapping[str, tuple[str | None, str]] = {
        "each answer as if it were a user": ("per answer", _ORANGE),
        "ratio, clustered by user": ("ratio", _GREEN),
        f"the same, {MOST_ANSWERS:g} answers a user at most": ("capped ratio", _GREY),
        "verdict": (None, _BLUE),
    }
    names = tuple(name for name, _ in lines.values() if name)
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, world in zip(figure.subplots(1, 2, sharey=True), (CLUSTERED, BOTS), strict=True):
        days = _days(world.days)
        found = play(Study(world, RULE, days, names), range(runs))
        for label, (analysis, colour) in lines.items():
            # Most of them lie on the axis: later ones thinner, so that all can be seen.
            width = 4.0 - 0.9 * len(axes.lines)
            wrong = _wrong_by(found, analysis)
            axes.plot(days, wrong, color=colour, label=label, linewidth=width, clip_on=False)
        axes.axhline(100 * ALPHA, color="black", linestyle="--", linewidth=0.8)
        axes.set(title=f"{world.name}, {runs} A/A experiments", xlabel="days", ylim=(0, 100))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    figure.axes[0].set_ylabel("wrong at some look by then, %")
    figure.savefig(path)
    return path.name


def novelty_plot(path: Path, *, runs: int = _RUNS) -> str:
    """The estimate over time where something new wears off, or has to be got used to."""
    settled = RULE.model_copy(update={"settling_days": SETTLING_DAYS})
    rules: Mapping[str, tuple[DecisionRule, str]] = {
        "every answer": (RULE, _ORANGE),
        f"a user's first {SETTLING_DAYS:g} days left out": (settled, _BLUE),
    }
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, world in zip(figure.subplots(1, 2, sharey=True), (NOVELTY, PRIMACY), strict=True):
        days = _days(world.days)
        for label, (rule, colour) in rules.items():
            estimate = play(Study(world, rule, days), range(runs)).estimate
            known = np.isfinite(estimate).mean(axis=0) > 1.0 - ALPHA
            if not known.any():
                continue
            shown = np.asarray(days)[known]
            low, middle, high = np.nanquantile(estimate[:, known], [0.05, 0.5, 0.95], axis=0)
            axes.plot(shown, middle, color=colour, label=label)
            axes.fill_between(shown, low, high, color=colour, alpha=0.15)
        axes.axhline(world.effect, color=_GREY, linestyle="--", label="lasting difference")
        axes.set(title=f"{world.name}, {runs} experiments", xlabel="days")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("challenger minus control, median and 90% of runs")
    figure.savefig(path)
    return path.name
