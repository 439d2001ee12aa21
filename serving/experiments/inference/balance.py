"""Does a number of each unit fall on two arms as the units were dealt? A randomisation test.

In: which arm each unit met, by a known chance, and one number of each from 0 to 1 on which the arm
should have no influence, like the share of its answers that lack an outcome. Out: a p-value that
holds at every look, from the first unit on, however the numbers are distributed: only the dealing
is taken for random, and its chances are computed exactly.

Given the numbers v, the product over units of exp(t * (met - share) * v) / its expectation is a
martingale of mean 1 for every tilt t, and so is the mean over some tilts. By Ville's inequality it
ever exceeds 1/alpha with probability at most alpha (Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic
statistics and safe anytime-valid inference", Statistical Science 38(4), 2023). Numbers that change
from look to look, as outcomes come in, leave each look exact, and all of them together nearly so.
"""

from typing import Final

import numpy as np
from scipy import special

from data.errors import ExperimentError
from serving.experiments.inference.levels import Flags, Floats, check_outcomes, check_share
from serving.experiments.inference.sequences import UNIT_RANGE, check_shapes

_TILTS: Final[Floats] = np.outer([-1.0, 1.0], 0.1 * 2.0 ** np.arange(13)).ravel()
"""Both ways, from one that tells of thousands of units with numbers near 1 to one for few with
numbers near 1/400. Between two the evidence's exponent loses a sixth at most."""


def balance_p(challenger: Flags, *values: Floats, challenger_share: float) -> float:
    """P-value of numbers that fall on the arms as the units do, valid at every look.

    Args:
        challenger: (units,) True where the challenger answered.
        values: (units,) one number of each unit, from 0 to 1; of several such arrays the mean
            evidence counts, so that either may show it.
        challenger_share: the chance with which a unit met the challenger.

    Raises:
        ExperimentError: shapes differ, a value is out of range, or the share leaves an arm empty.
    """
    check_share(challenger_share)
    log_e = [each for one in values for each in _log_evidence(challenger, one, challenger_share)]
    if not log_e:
        raise ExperimentError("no values; give one array of numbers or more")
    evidence = float(special.logsumexp(log_e) - np.log(len(log_e)))
    return float(np.exp(-max(evidence, 0.0)))


def _log_evidence(challenger: Flags, values: Floats, share: float) -> list[float]:
    """Of each tilt."""
    check_shapes(challenger, values)
    check_outcomes(values, UNIT_RANGE)
    if values.ndim != 1:
        raise ExperimentError(f"values has the shape {values.shape!r}; give one number per unit")
    some = values > 0.0  # the others tell nothing, and are most
    on, number = challenger[some], values[some]
    apart = float(number[on].sum() - share * number.sum())
    return [
        tilt * apart - float(_log_expectation(tilt * number, share).sum())
        for tilt in _TILTS.tolist()
    ]


def _log_expectation(tilted: Floats, share: float) -> Floats:
    """Log of the mean of exp(tilted * (met - share)), met being 1 with chance ``share``, else 0."""
    with_it = np.log(share) + tilted * (1.0 - share)
    without = np.log1p(-share) - tilted * share
    return np.asarray(np.logaddexp(with_it, without))
