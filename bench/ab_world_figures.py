"""What the worlds of ab_worlds.py share: rule and looks, and how their figures are worded."""

from collections.abc import Callable
from typing import Final

import numpy as np

from bench.ab_figures import AbFigure
from bench.ab_runs import Runs, Study
from bench.ab_traffic import World
from bench.ab_views import ALPHA, BURN_IN, TUNED_FOR
from serving.experiments.decision_rule import DecisionRule

Player = Callable[[Study, int], Runs]
"""Simulates so many experiments of a study."""
LOOKS: Final = (2.0, 4.0, 7.0, 10.0, 14.0)
RULE: Final = DecisionRule(
    metric="reward", alpha=ALPHA, min_exposures_per_arm=BURN_IN, tuned_for_units=TUNED_FOR
)
LIFT: Final = 0.05


def error(share: float, runs: int) -> float:
    """Standard error of a share of so many runs."""
    return float(np.sqrt(share * (1.0 - share) / runs))


def shown(share: float, runs: int) -> str:
    """A share with its standard error."""
    return f"{share:.2%} ± {error(share, runs):.2%}"


def listed(ways: dict[str, float], runs: int) -> str:
    """Several shares by name."""
    return "; ".join(f"{name} {shown(share, runs)}" for name, share in ways.items())


def described(world: World, runs: int, looks: tuple[float, ...] = LOOKS) -> str:
    """On what a figure was measured."""
    days = ", ".join(f"{day:g}" for day in looks)
    return (
        f"{runs:,} experiments of up to {world.units:,} users, {world.days:g} days, looked at "
        f"after days {days}; a user's expected answers lognormal (median {world.asks:g}, sigma "
        f"{world.spread:g}), intra-user correlation {world.likeness:g}"
    )


def at_most(value: float, bar: float, conditions: str) -> AbFigure:
    """A figure that may reach its bar."""
    return AbFigure(value, f"<= {bar:.4g}", conditions, met=value <= bar)


def at_least(value: float, bar: float, conditions: str) -> AbFigure:
    """A figure that must reach its bar."""
    return AbFigure(value, f">= {bar:.4g}", conditions, met=value >= bar)


def costs(value: float, nominal: float, conditions: str) -> AbFigure:
    """A figure that is no aim, but what it costs to do without; it shows that a world is one."""
    return AbFigure(value, f"> {nominal:.4g}", f"{conditions}. No aim", met=value > nominal)
