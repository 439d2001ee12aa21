"""Outcomes that are missing: how many, and whether one arm lacks more of them.

Units come in, shares and a p-value go out. Both are by units, as the metric is: a user's answers
lack outcomes together, and a bot's thousands lack them all.
"""

import numpy as np
from numpy.typing import NDArray

from serving.deployment import Arm
from serving.experiments.inference.balance import balance_p
from serving.experiments.units import UnitOutcomes


def missing_shares(data: UnitOutcomes) -> NDArray[np.float64]:
    """(n,) the share of each unit's answers that lack an outcome; 0 where nothing was answered.

    Their mean over units bounds how far what is missing can bend a mean over units. By answers, one
    bot that nobody judges would make every look invalid (`make ab-sim`, ``bots_judged_rate``).
    """
    answers = np.maximum(data.exposures, 1)
    return np.asarray((data.exposures - data.outcomes) / answers)


def uneven_p(data: UnitOutcomes, shares: NDArray[np.float64], challenger: Arm) -> float:
    """P-value, valid at every look, of what is missing falling on the arms as the units did.

    What falls: each unit's share, which tells of units that answer hundreds of times, and whether
    it lacks any outcome, which tells of units of few answers. A test of answers calls arms that are
    alike uneven, and more so at every look (``missing_alike_invalid_rate``).

    Args:
        data: units of two arms.
        shares: (n,) from ``missing_shares``.
        challenger: by whose share the units were dealt.

    Raises:
        ExperimentError: the share leaves an arm empty.
    """
    lacking = (shares > 0.0).astype(np.float64)
    return balance_p(data.met(challenger.name), shares, lacking, challenger_share=challenger.share)
