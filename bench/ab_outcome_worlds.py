"""Worlds whose outcomes come late, bad news first, or never.

A way to simulate and a number of runs come in, figures go out: whether intervals hold the truth,
and a verdict is reached, though outcomes take days; whether outcomes that are missing by arm are
noticed, and those that are missing alike are not taken for it.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from bench.ab_figures import AbFigure
from bench.ab_runs import Study
from bench.ab_unit_worlds import CLUSTERED
from bench.ab_views import ALPHA
from bench.ab_world_figures import (
    LIFT,
    LOOKS,
    RULE,
    Player,
    at_least,
    at_most,
    described,
    error,
    shown,
)

WINDOW_DAYS: Final = 5.0
LATE: Final = replace(
    CLUSTERED, name="late outcomes", effect=LIFT, delay_days=1.0, hurry=(4.0, 16.0)
)
ALIKE: Final = replace(CLUSTERED, name="missing alike", silent=0.02)
UNLIKE: Final = replace(
    CLUSTERED, name="missing by arm", units=2_000, silent=0.01, silent_wrong=(0.0, 0.15)
)
UNLIKE_BUSY: Final = replace(
    UNLIKE, name="missing by arm, busy units", units=700, asks=30.0, spread=0.5
)
UNSEEN: Final = replace(
    CLUSTERED, name="missing unseen", silent_wrong=(0.16, 0.0), silent_right=(0.0, 0.04)
)
_JUDGED: Final = 0.99
"""Sound data is called invalid by two alarms of 0.1% each."""
_CAUGHT: Final = 0.99
"""What is missing in the arms is expected 8 standard errors apart; the alarm takes 4.5 to 5."""


def late(play: Player, runs: int) -> dict[str, AbFigure]:
    """Outcomes that come days later, bad ones sooner, and the challenger's bad ones soonest."""
    rule = RULE.model_copy(update={"attribution_days": WINDOW_DAYS})
    some = max(runs // 2, 1)
    closed = play(Study(LATE, rule.model_copy(update={"closed_windows_only": True}), LOOKS), runs)
    strict = play(Study(LATE, rule, LOOKS), some)
    lax = play(Study(LATE, rule.model_copy(update={"max_missing_share": 1.0}), LOOKS), some)
    judged, unclosed = (float((x.decision[:, -1] != "invalid").mean()) for x in (closed, strict))
    what = (
        f"{described(LATE, runs)}; true difference {LIFT:+g}; outcomes known after a lognormal "
        f"time, median {24 * LATE.delay_days:g} h, sigma {LATE.delay_spread:g}, of wrong answers "
        f"{LATE.hurry[0]:g} times sooner, of the challenger's {LATE.hurry[1]:g} times; window "
        f"{WINDOW_DAYS:g} days; answers count once their window has closed"
    )
    return {
        "late_outcomes_coverage": at_least(
            closed.covered(LIFT),
            1.0 - ALPHA,
            f"share whose interval holds the truth at every look, {what}: "
            f"{shown(closed.covered(LIFT), runs)}. With whatever outcomes have come, however many "
            f"lack, {shown(lax.covered(LIFT), some)} of {some:,}",
        ),
        "late_outcomes_judged_rate": at_least(
            judged,
            _JUDGED,
            f"share that is not 'invalid' at the last look, {what}: {shown(judged, runs)}. Where "
            f"answers with open windows count too, {unclosed:.1%} of {some:,}: the rule lets "
            f"{rule.max_missing_share:.0%} lack an outcome",
        ),
    }


def missing(play: Player, runs: int) -> dict[str, AbFigure]:
    """Outcomes that never come."""
    return {
        "missing_by_arm_invalid_rate": _by_arm(play, runs),
        "missing_alike_invalid_rate": _alike(play, 2 * runs),
        "missing_unseen_bias": _unseen(play, runs),
    }


def _by_arm(play: Player, runs: int) -> AbFigure:
    said, caught = [], []
    for world in (UNLIKE, UNLIKE_BUSY):
        unlike = play(Study(world, RULE, LOOKS), runs)
        caught.append(float((unlike.decision[:, -1] == "invalid").mean()))
        said.append(
            f"{described(world, runs)}: {shown(caught[-1], runs)}, and before it was caught, a "
            f"look had promoted {shown(unlike.ever('promote'), runs)}"
        )
    return at_least(
        min(caught),
        _CAUGHT,
        f"share called invalid at the last look, the lesser of two worlds without a difference in "
        f"which nothing is heard of {UNLIKE.silent_wrong[1]:.0%} of the challenger's wrong answers "
        f"and of {UNLIKE.silent:.0%} of all: {'; '.join(said)}",
    )


def _alike(play: Player, runs: int) -> AbFigure:
    alike = play(Study(ALIKE, RULE, LOOKS, ("gaps per answer",)), runs)
    # Two alarms, of all units and of those with gaps, each wrong ever in srm_alpha at most.
    nominal = 2.0 * RULE.srm_alpha
    fisher = alike.rejected("gaps per answer", RULE.srm_alpha)
    return at_most(
        alike.ever("invalid"),
        nominal + 3.0 * error(nominal, runs),
        f"share called invalid at any look, {described(ALIKE, runs)}; A/A, nothing is heard of "
        f"{ALIKE.silent:.0%} of the answers, all of a tenth of the users: "
        f"{shown(alike.ever('invalid'), runs)}; nominal {nominal:.2%}, the bar is three standard "
        f"errors of so many runs above. Fisher's test of answers at the same level, "
        f"{RULE.srm_alpha:g}, would have called {fisher:.1%} uneven",
    )


def _unseen(play: Player, runs: int) -> AbFigure:
    unseen = play(Study(UNSEEN, RULE, LOOKS), runs)
    bent = float(np.nanmean(unseen.estimate[:, -1]))
    return at_most(
        abs(bent),
        2.0 * RULE.max_missing_share,
        f"mean estimate at the last look, {described(UNSEEN, runs)}; no difference, but nothing is "
        f"heard of {UNSEEN.silent_wrong[0]:.0%} of the control's wrong answers and of "
        f"{UNSEEN.silent_right[1]:.0%} of the challenger's right ones, in both arms some 3% of the "
        f"answers, so that no count shows it: {bent:+.4f}, and "
        f"{shown(unseen.ever('roll_back'), runs)} were rolled back. The bar is the most that "
        f"gaps can bend which the rule lets pass: {RULE.max_missing_share:.0%} of each arm, right "
        "in one and wrong in the other",
    )
