"""What an interval shows: superiority, non-inferiority, harm, or nothing yet.

A confidence sequence of the difference comes in, with the loss that is accepted and which way is
better; the reading after each unit goes out.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.sequences import ConfidenceSequence

Reading = Literal["better", "not_worse", "worse", "undecided"]


def readings(
    sequence: ConfidenceSequence,
    *,
    margin: float = 0.0,
    better_is: Literal["higher", "lower"] = "higher",
) -> NDArray[np.str_]:
    """What the interval shows after each unit: superiority, non-inferiority, harm or nothing yet.

    All are read off one interval, so no level is shared out among them, and whichever is read
    first may be acted on.

    Args:
        sequence: (…, units) of the difference, challenger minus champion.
        margin: loss that is accepted, in the metric's unit; agreed before the experiment.
        better_is: "lower" for latencies, costs and errors.

    Returns:
        (…, units) of "better" (a gain), "not_worse" (any loss is smaller than the margin), "worse"
        (the loss is larger than the margin), or "undecided".

    Raises:
        ExperimentError: the margin is negative or not finite.
    """
    if not 0.0 <= margin < math.inf:
        raise ExperimentError(
            f"margin={margin!r}; give the accepted loss as a number of at least 0, 0 for none"
        )
    low, high = sequence.low, sequence.high
    if better_is == "lower":
        low, high = -high, -low
    shown = [low > 0.0, low > -margin, high < -margin]
    return np.select(shown, ["better", "not_worse", "worse"], "undecided")
