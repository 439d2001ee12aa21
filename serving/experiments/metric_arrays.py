"""The arrays that metrics are read into: one entry per unit and arm, in the order of first asks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.experiments.inference.levels import Flags, Floats

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class PhaseUnits:
    """Who met which arm.

    Attributes:
        arm: (n,) the place of the arm that the unit met, the control's 0.
        first_us: (n,) when it was first asked.
        asks: (n,) how often.
        failures: (n,) asks that the arm could not answer.
        crossed: units that met two arms or more.
        strangers: arms in the store that the deployment has not.
        versions: arm → every model version that was asked.
    """

    arm: NDArray[np.int64]
    first_us: Counts
    asks: Counts
    failures: Counts
    crossed: int
    strangers: tuple[str, ...]
    versions: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class MetricValues:
    """A metric of each unit: a sum, and what it is divided by.

    Attributes:
        numerator: (n,) sum over the unit's asks or outcomes.
        denominator: (n,) how many there were; 0 where the unit has none.
    """

    numerator: Floats
    denominator: Floats

    @property
    def known(self) -> Flags:
        """(n,) where the unit has a value."""
        return np.asarray(self.denominator > 0)

    @property
    def values(self) -> Floats:
        """(n,) the unit's own value; NaN without one."""
        out = np.full(len(self.numerator), np.nan)
        np.divide(self.numerator, self.denominator, out=out, where=self.known)
        return out

    def of(self, which: Flags) -> "MetricValues":
        """Of some of the units: (n,) True for each."""
        return MetricValues(self.numerator[which], self.denominator[which])


@dataclass(frozen=True)
class SingleValues:
    """A metric of each answer, for quantiles: (m,) values, arms' places, and numbers of units."""

    values: Floats
    arm: NDArray[np.int64]
    unit: Counts


@dataclass(frozen=True)
class Earlier:
    """What units brought along.

    Attributes:
        asks: (n,) before the phase opened, of none of the experiment's own arms.
        metrics: metric → its values then; empty where no unit has a past.
    """

    asks: Counts
    metrics: dict[str, MetricValues]
