"""The difference of ratios from sums that are kept up to date: a look costs the same at any size.

``anytime_difference`` of ``ratio_arms`` reads every unit at every look. Here a unit's numerator
and denominator change with each of its events, and what changes is taken out of an arm's sums of
powers and put back; from those follow the ratio, its delta-method variance, and how many effective
units that variance rests on (burn_in.py).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.experiments.inference.boundaries import squared_boundary
from serving.experiments.inference.burn_in import EFFECTIVE, too_few_by_sums
from serving.experiments.inference.levels import Floats

LEAST_UNITS: Final = 100
"""Units that each arm must have; see ``ratios.ratio_sequence``."""
_POWERS: Final = (
    *((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)),
    *((4, 0), (3, 1), (2, 2), (1, 3), (0, 4)),
)
"""Of numerator and denominator, that are summed."""
_SAME: Final = 1e-8
"""Squared deviations below this part of the squares are what rounding leaves of none."""


@dataclass(frozen=True)
class RatioLook:
    """What the sums say of an arm against the control.

    Attributes:
        control: the control's ratio; NaN without any.
        challenger: the arm's ratio; NaN without any.
        low: lower end of their difference, challenger minus control; infinite while too little is
            known.
        high: upper end.
    """

    control: float
    challenger: float
    low: float
    high: float


class RatioSums:
    """The sums of powers of every arm's units."""

    def __init__(self, arms: int):
        """Nothing was seen yet."""
        self._sums = np.zeros((arms, len(_POWERS)))

    def units(self, arm: int) -> int:
        """How many units of an arm have something in their denominator."""
        return round(float(self._sums[arm, 0]))

    def ratio(self, arm: int) -> float:
        """An arm's sum of numerators by its sum of denominators; NaN without any."""
        _, above, below = self._sums[arm, :3]
        return float(above / below) if below > 0.0 else float("nan")

    def change(
        self, arm: NDArray[np.integer], before: tuple[Floats, Floats], after: tuple[Floats, Floats]
    ) -> None:
        """Units have changed, each named once.

        Args:
            arm: (units,) whose they are.
            before: (units,) numerators and denominators until now, 0 of a new unit.
            after: (units,) what they are from now on.

        Raises:
            ExperimentError: one is not finite, or a denominator is negative.
        """
        for numerator, denominator in (before, after):
            if not (np.isfinite(numerator).all() and np.isfinite(denominator).all()):
                raise ExperimentError(
                    "a numerator or denominator is not finite; leave out what was not measured"
                )
            if denominator.size and denominator.min() < 0.0:
                raise ExperimentError(
                    f"a denominator is {float(denominator.min())!r}; give 0 or more"
                )
        np.add.at(self._sums, arm, _powers(*after) - _powers(*before))

    def look(self, arm: int, *, alpha: float, rho: float) -> RatioLook:
        """An arm against the control, which is arm 0.

        Args:
            arm: 1 or more.
            alpha: chance that the lower end is ever above the difference; of the upper one, too.
            rho: ``best_rho``'s at this alpha, for one side.
        """
        control, challenger = self.ratio(0), self.ratio(arm)
        nothing = RatioLook(control, challenger, -np.inf, np.inf)
        if min(self.units(0), self.units(arm)) < LEAST_UNITS:
            return nothing
        squares, fourths = np.transpose([self._deviations(0), self._deviations(arm)])
        # Two arms of which neither ever varied, such as fixed prices, leave nothing to doubt. One
        # alone may just not have met its rare values yet.
        if (
            squares.any()
            and too_few_by_sums(
                self._sums[[0, arm], 0], squares, fourths, burn_in=1, min_effective=EFFECTIVE
            ).any()
        ):
            return nothing
        units, below = self._sums[[0, arm], 0], self._sums[[0, arm], 2]
        variance = float((squares * units / (units - 1.0) / below**2).sum())
        x = np.asarray(units.sum() * rho**2)
        radius = float(np.sqrt(variance * squared_boundary(x, alpha, "greater")))
        difference = challenger - control
        return RatioLook(control, challenger, difference - radius, difference + radius)

    def _deviations(self, arm: int) -> tuple[float, float]:
        """Sums of the second and the fourth powers of numerator - ratio * denominator."""
        ratio, sums = self.ratio(arm), self._sums[arm]
        squares = float(sums[3:6] @ (1.0, -2.0 * ratio, ratio**2))
        if squares <= _SAME * sums[3]:
            return 0.0, 0.0
        weights = np.asarray([1.0, -4.0, 6.0, -4.0, 1.0]) * ratio ** np.arange(5)
        return squares, max(float(sums[6:] @ weights), 0.0)


def _powers(numerator: Floats, denominator: Floats) -> Floats:
    """(units, powers) what each unit adds to its arm's sums."""
    powers = [numerator**of_one * denominator**of_other for of_one, of_other in _POWERS]
    powers[0] = (denominator > 0.0).astype(np.float64)
    return np.stack(powers, axis=-1)
