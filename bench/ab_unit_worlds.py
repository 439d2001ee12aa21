"""Worlds whose units are no single answers: users who answer often and alike, and bots.

A way to simulate and a number of runs come in, figures go out: how often A/A experiments are judged
wrongly by the product's verdict, ratios and latencies, and by a test that takes each answer for a
user; and whether intervals hold a true difference.
"""

from dataclasses import replace
from typing import Final

from bench.ab_figures import AbFigure
from bench.ab_runs import Runs, Study
from bench.ab_traffic import World
from bench.ab_views import ALPHA, MOST_ANSWERS, QUANTILE
from bench.ab_world_figures import (
    LIFT,
    LOOKS,
    RULE,
    Player,
    at_least,
    at_most,
    costs,
    described,
    listed,
    shown,
)

CLUSTERED: Final = World("clustered units")
BOTS: Final = replace(CLUSTERED, name="bots", bots=0.005)
SILENT: Final = replace(BOTS, name="bots that say nothing", bots_silent=True)
_BOTS: Final = (
    f"{BOTS.bots:.1%} of the units are bots of some {BOTS.bot_asks:,.0f} answers, always right or "
    "always wrong"
)
_JUDGED: Final = 0.99
"""Sound data is called invalid by two alarms of 0.1% each."""


def clustered(play: Player, runs: int) -> dict[str, AbFigure]:
    """Users with many answers that are alike; ``2 * runs`` A/A experiments, ``runs`` A/B."""
    twice = 2 * runs
    names = ("ratio", "latency", "ratio, one look", "per answer")
    same = play(Study(CLUSTERED, RULE, LOOKS, names), twice)
    lifted = play(Study(replace(CLUSTERED, effect=LIFT), RULE, LOOKS), runs)
    ways = {
        "verdict promotes or rolls back": float(same.acted().mean()),
        "ratio of right answers": same.rejected("ratio", ALPHA),
        f"latency's quantile {QUANTILE:g}": same.rejected("latency", ALPHA),
    }
    once = same.rejected_last("ratio, one look", ALPHA)
    return {
        "clustered_false_positive_rate": at_most(
            max(ways.values()),
            ALPHA,
            f"A/A, {described(CLUSTERED, twice)}; wrong at any look, the worst of: "
            f"{listed(ways, twice)}. At the last look alone the ratio's Welch interval, whose "
            f"level is exact on average, was wrong in {shown(once, twice)}",
        ),
        "clustered_naive_false_positive_rate": _naive(CLUSTERED, same),
        "clustered_coverage": at_least(
            min(same.covered(0.0), lifted.covered(LIFT)),
            1.0 - ALPHA,
            f"share whose verdict's interval holds the truth at every look: A/A "
            f"{shown(same.covered(0.0), twice)}; {described(CLUSTERED, runs)}, true difference "
            f"{LIFT:+g}, {shown(lifted.covered(LIFT), runs)}, of which "
            f"{lifted.ever('promote'):.1%} were promoted",
        ),
    }


def bots(play: Player, runs: int) -> dict[str, AbFigure]:
    """A few units with thousands of answers that are always right or always wrong."""
    same = play(Study(BOTS, RULE, LOOKS, ("ratio", "capped ratio", "per answer")), runs)
    ways = {
        "verdict, in which a unit counts once": float(same.acted().mean()),
        f"ratio of sums capped at {MOST_ANSWERS:g} answers": same.rejected("capped ratio", ALPHA),
    }
    lift = 2.0 * LIFT
    some = max(runs // 2, 1)
    lifted = play(Study(replace(BOTS, effect=lift), RULE, LOOKS, ("ratio", "capped ratio")), some)
    found = {name: lifted.rejected(name, ALPHA) for name in lifted.p}
    silent = play(Study(SILENT, RULE, LOOKS), runs)
    judged = float((silent.decision[:, -1] != "invalid").mean())
    return {
        "bots_false_positive_rate": at_most(
            max(ways.values()),
            ALPHA,
            f"A/A, {described(BOTS, runs)}; {_BOTS}; wrong at any look, the worst of: "
            f"{listed(ways, runs)}. The ratio without a cap "
            f"{shown(same.rejected('ratio', ALPHA), runs)}, but of a true difference {lift:+g} for "
            f"people it finds {found['ratio']:.1%} of {some:,}, with a cap "
            f"{found['capped ratio']:.1%}",
        ),
        "bots_naive_false_positive_rate": _naive(BOTS, same),
        "bots_judged_rate": at_least(
            judged,
            _JUDGED,
            f"share that is not 'invalid' at the last look, {described(SILENT, runs)}; {_BOTS}, "
            f"and nothing is ever heard of their answers: {shown(judged, runs)}",
        ),
    }


def _naive(world: World, same: Runs) -> AbFigure:
    runs = len(same.decision)
    last = same.rejected_last("per answer", ALPHA)
    return costs(
        last,
        ALPHA,
        f"Welch's test at {ALPHA:.0%} as if each answer were a user, of A/A experiments with "
        f"{world.name}, {described(world, runs)}; at the last look alone {shown(last, runs)}, at "
        f"any of the looks {same.rejected('per answer', ALPHA):.2%}",
    )
