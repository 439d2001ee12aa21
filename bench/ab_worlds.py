"""Worlds in which experiments go wrong, and how the product fares in each.

Users who answer often, bots, outcomes that come late or never, novelty that wears off: nothing
comes in but a way to say how far it is; out go figures of a thousand simulated experiments or more
a world, each judged by the product's own code at every look. Bars come from levels and theory, none
from what was measured; in the conditions of a figure stands what a careless analysis of the same
experiments would have said.

    python -m bench.ab_sim --only worlds
"""

from collections.abc import Callable
from typing import Final

from bench.ab_figures import AbFigure
from bench.ab_novelty_worlds import novelty
from bench.ab_outcome_worlds import late, missing
from bench.ab_runs import pool, simulate
from bench.ab_unit_worlds import bots, clustered
from bench.ab_world_figures import Player

RUNS: Final = 1_000
WORLDS: Final[dict[str, Callable[[Player, int], dict[str, AbFigure]]]] = {
    "clustered": clustered,
    "bots": bots,
    "late": late,
    "missing": missing,
    "novelty": novelty,
}


def measure(say: Callable[[str], None], *, runs: int = RUNS) -> dict[str, AbFigure]:
    """The figures of every world.

    Args:
        say: told how far it is.
        runs: simulated experiments of a figure, or twice as many.
    """
    figures: dict[str, AbFigure] = {}
    with pool() as executor:
        for name, world in WORLDS.items():
            found = world(lambda study, count: simulate(study, count, executor), runs)
            say(f"{name}: " + ", ".join(f"{key} {one.value:.4g}" for key, one in found.items()))
            figures |= found
    return figures
