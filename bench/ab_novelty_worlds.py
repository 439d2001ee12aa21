"""Worlds whose effects do not last: novelty that wears off, and what has to be got used to.

A way to simulate and a number of runs come in, figures go out: how far an estimate of every answer
is from the lasting difference, and what leaving out each user's first days does to it.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from bench.ab_figures import AbFigure
from bench.ab_runs import Runs, Study
from bench.ab_traffic import World
from bench.ab_unit_worlds import CLUSTERED
from bench.ab_views import ALPHA
from bench.ab_world_figures import LIFT, LOOKS, RULE, Player, at_most, costs, described, shown

SETTLING_DAYS: Final = 7.0
LONG_LOOKS: Final = (*LOOKS, 21.0)
NOVELTY: Final = replace(CLUSTERED, name="novelty", days=21.0, asks=5.0, novelty=0.15)
PRIMACY: Final = replace(NOVELTY, name="primacy", novelty=-0.15, effect=LIFT)
_SETTLED: Final = RULE.model_copy(update={"settling_days": SETTLING_DAYS})
_LEFT_OUT: Final = f"a user's first {SETTLING_DAYS:g} days left out"


def novelty(play: Player, runs: int) -> dict[str, AbFigure]:
    """Both worlds, with every answer and without each user's first days."""
    plain, settled = (play(Study(NOVELTY, rule, LONG_LOOKS), runs) for rule in (RULE, _SETTLED))
    used = play(Study(PRIMACY, _SETTLED, LONG_LOOKS), runs)
    some = max(runs // 2, 1)
    shy = play(Study(PRIMACY, RULE, LONG_LOOKS), some)
    bias = _bias(plain)
    promoted, returned = settled.ever("promote"), used.ever("roll_back")
    new = _fading(NOVELTY, runs)
    return {
        "novelty_bias": costs(
            bias,
            0.0,
            f"mean estimate at the last look minus the lasting difference, {new}; every answer "
            f"counts: {bias:+.4f}, and {shown(plain.ever('promote'), runs)} were promoted though "
            "nothing lasts",
        ),
        "novelty_settled_bias": _settled_bias(settled),
        "novelty_false_promotion_rate": at_most(
            promoted,
            ALPHA,
            f"share promoted at any look though nothing lasts, {new}; {_LEFT_OUT}: "
            f"{shown(promoted, runs)}",
        ),
        "primacy_false_roll_back_rate": at_most(
            returned,
            ALPHA,
            f"share rolled back at any look though the lasting difference is {PRIMACY.effect:+g}, "
            f"{_fading(PRIMACY, runs)}; {_LEFT_OUT}: {shown(returned, runs)}, promoted "
            f"{used.ever('promote'):.1%}; when every answer counts "
            f"{shown(shy.ever('roll_back'), some)} of {some:,} were rolled back",
        ),
    }


def _bias(runs: Runs) -> float:
    return float(np.nanmean(runs.estimate[:, -1]) - NOVELTY.effect)


def _fading(world: World, runs: int) -> str:
    return (
        f"{described(world, runs, LONG_LOOKS)}; {world.novelty:+g} at a user's first answer fades "
        f"by a factor e in {world.fade_days:g} days of a user's own time"
    )


def _settled_bias(settled: Runs) -> AbFigure:
    runs = len(settled.decision)
    left = _bias(settled)
    error = float(np.nanstd(settled.estimate[:, -1]) / np.sqrt(runs))
    # No answer that counts has more of the novelty left than this.
    rest = NOVELTY.novelty * float(np.exp(-SETTLING_DAYS / NOVELTY.fade_days))
    return at_most(
        abs(left),
        rest + 3.0 * error,
        f"mean estimate at the last look minus the lasting difference, {_fading(NOVELTY, runs)}; "
        f"{_LEFT_OUT}: {left:+.4f} ± {error:.4f}; the bar is what is left of the novelty after "
        f"{SETTLING_DAYS:g} days, and three standard errors",
    )
