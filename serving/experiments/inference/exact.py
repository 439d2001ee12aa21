"""Small samples: methods whose level needs no large numbers, and which of them a sample gets.

Counts or values of two arms come in, an estimate with an interval or a p-value goes out, for one
look at a size fixed beforehand; the anytime-valid sequence takes over where ``method_for`` says so.

- rates: exact_rates.py;
- means: the permutation test, of all rearrangements where they are few;
- preferences of a judge over pairs: the exact binomial (sign) test with Clopper-Pearson's interval.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.levels import check_level

Floats = NDArray[np.float64]
Outcome = Literal["rate", "mean", "preference"]
Method = Literal["exact_rates", "permutation", "sign_test", "sequence"]
_EXACT: Final[dict[Outcome, Method]] = {
    "rate": "exact_rates",
    "mean": "permutation",
    "preference": "sign_test",
}
EXACT_BELOW: Final = 100
"""Units of the smaller arm up to which a sample is small: the verdict's sequence begins there."""
_BATCH_VALUES: Final = 1_000_000


@dataclass(frozen=True)
class MeanDifference:
    """Challenger's mean minus champion's.

    Attributes:
        estimate: the difference.
        p: two-sided p-value of "the arms do not differ at all".
        exact: whether every rearrangement was tried rather than a random draw of them.
    """

    estimate: float
    p: float
    exact: bool


@dataclass(frozen=True)
class Preference:
    """How often the challenger won among the pairs that were decided.

    Attributes:
        wins: pairs that the challenger won.
        losses: pairs that the champion won.
        ties: pairs without a winner; they bear on ``net`` only.
        share: wins among the decided; one half if none is.
        low: lower end of the share's exact interval.
        high: its upper end.
        p: two-sided exact p-value of "either wins as often".
        net: wins minus losses, divided by all pairs: -1 … 1.
    """

    wins: int
    losses: int
    ties: int
    share: float
    low: float
    high: float
    p: float
    net: float


def method_for(outcome: Outcome, smaller_arm: int, *, exact_below: int = EXACT_BELOW) -> Method:
    """Which method a sample gets: an exact one below ``exact_below`` units of the smaller arm.

    A rule of size alone, so that it may not be chosen by the result. Where nobody plans to look
    twice a preference may have its exact test at any size.

    Raises:
        ExperimentError: no such outcome, or a negative size.
    """
    if outcome not in _EXACT:
        raise ExperimentError(f"outcome={outcome!r}; take one of {sorted(_EXACT)!r}")
    if smaller_arm < 0 or exact_below < 0:
        raise ExperimentError(
            f"smaller_arm={smaller_arm!r}, exact_below={exact_below!r}; sizes count from 0 up"
        )
    return _EXACT[outcome] if smaller_arm < exact_below else "sequence"


def _check_values(name: str, values: Floats) -> None:
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():  # noqa: PLR2004
        raise ExperimentError(
            f"the {name}'s values of shape {values.shape!r} are fewer than two, missing or "
            "infinite; pass one number per unit, and two units or more"
        )


def _mean_difference(challenger: Floats, champion: Floats, axis: int) -> Floats:
    return np.asarray(challenger.mean(axis=axis) - champion.mean(axis=axis))


def permutation_test(
    champion: Floats, challenger: Floats, *, draws: int, seed: int, paired: bool = False
) -> MeanDifference:
    """The difference of means, judged by rearranging which unit was in which arm.

    Exact in level at any size and for any distribution. It asks whether the arms differ at all:
    with unequal arms of unequal spread it may answer yes to the spread.

    Args:
        champion: (units,) values.
        challenger: (units,) values; of the same items, in the same order, if ``paired``.
        draws: random rearrangements, where there are more than so many; their p-value is never 0.
        seed: of the draw.
        paired: both arms answered the same items, so that only the sign of a difference is chance.

    Raises:
        ExperimentError: an arm has fewer than two units, a value is not finite, or pairs are
            missing.
    """
    _check_values("champion", champion)
    _check_values("challenger", challenger)
    if draws < 1:
        raise ExperimentError(f"draws={draws!r}; draw at least once, better 10,000 times")
    if paired and champion.shape != challenger.shape:
        raise ExperimentError(
            f"{champion.shape!r} and {challenger.shape!r} are not values of the same items"
        )
    units = champion.size + challenger.size
    ways = 2**champion.size if paired else math.comb(units, champion.size)
    found = stats.permutation_test(
        (challenger, champion),
        _mean_difference,
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=draws,
        batch=max(_BATCH_VALUES // units, 1),
        rng=np.random.default_rng(seed),
    )
    return MeanDifference(
        estimate=float(challenger.mean() - champion.mean()),
        p=float(found.pvalue),
        exact=ways <= draws,
    )


def sign_test(wins: int, losses: int, ties: int = 0, *, alpha: float) -> Preference:
    """A judge's preferences over pairs: exact binomial test, Clopper-Pearson interval.

    Ties say nothing of who wins, so the test leaves them out (Dixon & Mood, JASA 41, 1946).

    Raises:
        ExperimentError: a negative count, or alpha not between 0 and 1.
    """
    check_level(alpha)
    if min(wins, losses, ties) < 0:
        raise ExperimentError(
            f"wins={wins!r}, losses={losses!r}, ties={ties!r}; counts are 0 or more"
        )
    pairs = wins + losses + ties
    net = (wins - losses) / pairs if pairs else 0.0
    if wins + losses == 0:
        return Preference(wins, losses, ties, share=0.5, low=0.0, high=1.0, p=1.0, net=net)
    result = stats.binomtest(wins, wins + losses, 0.5)
    low, high = result.proportion_ci(confidence_level=1.0 - alpha, method="exact")
    return Preference(
        wins,
        losses,
        ties,
        share=wins / (wins + losses),
        low=float(low),
        high=float(high),
        p=float(result.pvalue),
        net=net,
    )
