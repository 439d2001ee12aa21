"""Traffic with known effects, as awkward as real traffic is.

A world and a seed come in; every answer of one experiment goes out: whose it was, when it was
given, whether it was right, how long it took, and when that became known, if ever. Nothing here
knows of the product: ab_views.py makes of it what a store would hold at a look.

Users differ: how much each asks is lognormal, how often answers suit it is beta distributed, so
that answers of one user are alike (intra-unit correlation). An effect moves wrong answers to right
ones, or right ones to wrong ones, by a fixed share, so that the mean moves by exactly the effect.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]
SHARE: Final = 0.5
"""Of the units, that meets the challenger."""
_LATENCY_MS: Final = 120.0
_LATENCY_OF_UNITS: Final = 0.4
_LATENCY_OF_ANSWERS: Final = 0.5
_WITHHOLDING: Final = 0.1
"""Of the users: those from whom some outcomes never come, so that gaps are clustered too."""


@dataclass(frozen=True)
class World:
    """What users, bots and models do.

    Attributes:
        name: in reports.
        units: users, of whom those count who ask at all.
        days: how long it goes on.
        asks: median of a user's expected answers.
        spread: of their logarithm; 1.0 lets the busiest 1% ask ten times the median.
        rate: share of right answers under the control.
        likeness: intra-unit correlation of answers.
        effect: lasting difference of the shares of right answers, challenger minus control.
        novelty: what is added to the effect at a user's first answer; below zero it is primacy.
        fade_days: of a user's own time until a third (1/e) of the novelty is left.
        bots: share of the units that are bots; each is always right or always wrong.
        bot_asks: a bot's expected answers.
        bots_silent: whether nothing is ever heard of a bot's answers.
        delay_days: median time from an answer until its outcome is known; 0: at once.
        delay_spread: of its logarithm.
        hurry: by arm, how many times sooner the outcome of a wrong answer is known.
        silent: share of answers of which nothing is ever heard, concentrated in few users.
        silent_wrong: by arm, share of wrong answers of which nothing is heard besides.
        silent_right: the same of right answers.
    """

    name: str
    units: int = 1_500
    days: float = 14.0
    asks: float = 3.0
    spread: float = 1.0
    rate: float = 0.80
    likeness: float = 0.3
    effect: float = 0.0
    novelty: float = 0.0
    fade_days: float = 2.0
    bots: float = 0.0
    bot_asks: float = 2_000.0
    bots_silent: bool = False
    delay_days: float = 0.0
    delay_spread: float = 0.8
    hurry: tuple[float, float] = (1.0, 1.0)
    silent: float = 0.0
    silent_wrong: tuple[float, float] = (0.0, 0.0)
    silent_right: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Traffic:
    """One experiment: (units,) who, and (answers,) what, sorted by unit and then by time.

    Attributes:
        unit_id: (units,) 32 random bytes each.
        on: (units,) True where the unit meets the challenger.
        unit: (answers,) the number of each answer's unit.
        at: (answers,) days since the start.
        age: (answers,) days since the unit's first answer.
        right: (answers,) 1 where the answer was right, else 0.
        latency_ms: (answers,).
        known_at: (answers,) days since the start when the outcome is known; infinite if never.
    """

    unit_id: NDArray[np.void]
    on: Flags
    unit: Ints
    at: Floats
    age: Floats
    right: Floats
    latency_ms: Floats
    known_at: Floats


def draw(world: World, seed: int) -> Traffic:
    """One experiment of a world; the same seed makes the same one."""
    random = np.random.default_rng(seed)
    bot = random.random(world.units) < world.bots
    expected = world.asks * np.exp(random.normal(0.0, world.spread, world.units))
    asked = random.poisson(np.where(bot, world.bot_asks, expected))
    bot, asked = bot[asked > 0], asked[asked > 0]
    units = len(asked)
    on = random.random(units) < SHARE
    unit = np.repeat(np.arange(units), asked)
    at = random.random(len(unit)) * world.days
    at = at[np.lexsort((at, unit))]
    starts = np.cumsum(asked) - asked
    age = at - at[starts][unit]
    right = _right(world, random, bot=bot, on=on, unit=unit, age=age)
    slow = random.normal(0.0, _LATENCY_OF_UNITS, units)[unit]
    noise = random.normal(0.0, _LATENCY_OF_ANSWERS, len(unit))
    return Traffic(
        unit_id=np.frombuffer(random.bytes(32 * units), dtype="V32"),
        on=on,
        unit=unit,
        at=at,
        age=age,
        right=right.astype(np.float64),
        latency_ms=_LATENCY_MS * np.exp(slow + noise),
        known_at=_known_at(world, random, bot=bot, on=on, unit=unit, at=at, right=right),
    )


def _right(
    world: World, random: np.random.Generator, *, bot: Flags, on: Flags, unit: Ints, age: Floats
) -> Flags:
    """Whether each answer was right."""
    alike = (1.0 - world.likeness) / world.likeness
    taste = random.beta(world.rate * alike, (1.0 - world.rate) * alike, len(bot))
    right = (
        random.random(len(unit)) < np.where(bot, random.random(len(bot)) < world.rate, taste)[unit]
    )
    effect = world.effect + world.novelty * np.exp(-age / world.fade_days)
    moved = random.random(len(unit)) < np.where(
        right, -effect / world.rate, effect / (1.0 - world.rate)
    )
    return np.asarray(right ^ (moved & on[unit] & ~bot[unit]))


def _known_at(
    world: World,
    random: np.random.Generator,
    *,
    bot: Flags,
    on: Flags,
    unit: Ints,
    at: Floats,
    right: Flags,
) -> Floats:
    """When each outcome is known."""
    arm = on[unit].astype(np.int64)
    delay = world.delay_days * np.exp(random.normal(0.0, world.delay_spread, len(unit)))
    known = at + np.where(right, delay, delay / np.asarray(world.hurry)[arm])
    withholds = random.random(len(on)) < _WITHHOLDING
    silent = (random.random(len(unit)) < world.silent / _WITHHOLDING) & withholds[unit]
    besides = np.where(
        right, np.asarray(world.silent_right)[arm], np.asarray(world.silent_wrong)[arm]
    )
    silent |= random.random(len(unit)) < besides
    silent |= bot[unit] & world.bots_silent
    return np.where(silent, np.inf, known)
