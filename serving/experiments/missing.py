"""Outcomes that are missing: how many, and whether one arm lacks more of them.

Units come in, shares and a p-value go out. Both are by units, as the metric is: a user's answers
lack outcomes together, and a bot's thousands lack them all.
"""

import numpy as np

from serving.experiments.inference.balance import balance_p
from serving.experiments.inference.levels import Flags, Floats
from serving.experiments.units import UnitOutcomes


def missing_shares(data: UnitOutcomes) -> Floats:
    """(n,) the share of each unit's answers that lack an outcome; 0 where nothing was answered.

    Their mean over units bounds how far what is missing can bend a mean over units. By answers, one
    bot that nobody judges would make every look invalid (`make ab-sim`, ``bots_judged_rate``).
    """
    answers = np.maximum(data.exposures, 1)
    return np.asarray((data.exposures - data.outcomes) / answers)


def uneven_p(challenger: Flags, shares: Floats, *, challenger_share: float) -> float:
    """P-value, valid at every look, of what is missing falling on two arms as the units did.

    What falls: each unit's share, which tells of units that answer hundreds of times, and whether
    it lacks any outcome, which tells of units of few answers. A test of answers calls arms that are
    alike uneven, and more so at every look (``missing_alike_invalid_rate``).

    Args:
        challenger: (n,) True where the challenger answered.
        shares: (n,) of each unit's answers, those without an outcome.
        challenger_share: with which chance a unit of the two arms met the challenger.

    Raises:
        ExperimentError: that share leaves an arm empty, or a share is none.
    """
    lacking = (shares > 0.0).astype(np.float64)
    return balance_p(challenger, shares, lacking, challenger_share=challenger_share)
