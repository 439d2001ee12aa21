"""What each unit of each arm adds up to, kept as events come in: per metric, in numpy arrays.

Slots number the pairs of arm and unit, in the order in which they first came. A tally of a metric
holds each slot's sum of numerators and of denominators, what they come to per arm
(inference/ratio_sums.py), and every slot's first value, which is independent of all others. An
arm's value is the ratio of sums over its units; or, as of what is fed back, the mean of their own.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.experiments.inference.anytime_rates import Sum
from serving.experiments.inference.levels import Floats
from serving.experiments.inference.ratio_sums import RatioSums

Numbers = NDArray[np.int64]
_START: Final = 1_024
_FINEST, _COARSEST, _STEP = 1e-9, 1e9, 1.01
_POSITIVE: Final = _FINEST * _STEP ** np.arange(
    int(np.ceil(np.log(_COARSEST / _FINEST) / np.log(_STEP))) + 1
)
EDGES: Final[Floats] = np.concatenate(
    [[-np.inf], -_POSITIVE[::-1], [0.0], _POSITIVE, [np.inf]], dtype=np.float64
)
"""Of bins that are 1% of their value wide, for quantiles of whatever is measured."""


class Slots:
    """The numbers of units. Used from one thread at a time."""

    def __init__(self, arms: Sequence[str]):
        """No unit has come yet.

        Args:
            arms: by name, the control first.
        """
        self.arms = tuple(arms)
        self._places = {name: place for place, name in enumerate(arms)}
        self._of: dict[bytes, int] = {}
        self._arm: list[int] = []
        self._units = [0] * len(self.arms)

    def __len__(self) -> int:
        """How many slots there are."""
        return len(self._arm)

    def number(self, arm: str, unit: str) -> int:
        """The slot of a unit in an arm.

        Args:
            arm: one of ``arms``.
            unit: hashed, in hex digits.
        """
        place = self._places[arm]
        key = bytes.fromhex(unit) + bytes([place])
        slot = self._of.setdefault(key, len(self._arm))
        if slot == len(self._arm):
            self._arm.append(place)
            self._units[place] += 1
        return slot

    def arm_of(self, slots: Numbers) -> Numbers:
        """The place of each slot's arm."""
        return np.asarray([self._arm[slot] for slot in slots], dtype=np.int64)

    def units(self) -> dict[str, int]:
        """How many units each arm has met."""
        return dict(zip(self.arms, self._units, strict=True))


class Tally:
    """One metric of every slot."""

    def __init__(self, slots: Slots, *, of_means: bool, binned: bool, bounded: bool):
        """Nothing was measured yet.

        Args:
            slots: the units.
            of_means: an arm's value is the mean of its units' own ratios.
            binned: count first values in bins, for quantiles.
            bounded: values lie between 0 and 1, and first ones are added up.
        """
        self._slots = slots
        arms = len(slots.arms)
        self.sums = RatioSums(arms)
        self._of: Floats = np.zeros((2, _START))
        self._of_means = of_means
        self._bounded = bounded
        self._first = np.zeros((arms, 2))
        self.bins: Numbers = np.zeros((arms, len(EDGES) - 1 if binned else 0), dtype=np.int64)

    def first(self, arm: int) -> Sum | None:
        """The first values of an arm's units; None without any, or where they are not bounded."""
        count, total = self._first[arm]
        return Sum(min(float(total), float(count)), int(count)) if count else None

    def add(self, slots: Numbers, numerators: Floats, denominators: Floats) -> None:
        """Events have come.

        Args:
            slots: (events,) whose.
            numerators: (events,) what each adds.
            denominators: (events,) 1 where it was measured, 0 where it was not.
        """
        measured = denominators > 0.0
        self._keep(slots[measured], numerators[measured], denominators[measured])

    def correct(self, slots: Numbers, changes: Floats) -> None:
        """Values that were added have changed by so much; first values stay what they were."""
        self._keep(slots, changes, np.zeros_like(changes))

    def _keep(self, slots: Numbers, numerators: Floats, denominators: Floats) -> None:
        if not len(slots):
            return
        changed, first, place = np.unique(slots, return_index=True, return_inverse=True)
        self._make_room(int(changed[-1]))
        arm = self._slots.arm_of(changed)
        before = self._of[:, changed]
        after = before.copy()
        for row, added in enumerate((numerators, denominators)):
            after[row] += np.bincount(place, weights=added, minlength=len(changed))
        new = before[1] == 0.0
        self.sums.change(arm, self._counted(before), self._counted(after))
        self._of[:, changed] = after
        self._keep_first(arm[new], numerators[first][new] / denominators[first][new])

    def _counted(self, sums: Floats) -> tuple[Floats, Floats]:
        """Of (2, units) numerators and denominators what the arms' sums take."""
        if not self._of_means:
            return sums[0], sums[1]
        measured = sums[1] > 0.0
        means = np.divide(sums[0], sums[1], out=np.zeros_like(sums[0]), where=measured)
        return means, measured.astype(np.float64)

    def _keep_first(self, arm: Numbers, values: Floats) -> None:
        if self._bounded:
            np.add.at(self._first, arm, np.stack([np.ones_like(values), values], axis=-1))
        if self.bins.size:
            np.add.at(self.bins, (arm, np.searchsorted(EDGES, values, side="right") - 1), 1)

    def _make_room(self, slot: int) -> None:
        if slot >= self._of.shape[1]:
            more = np.zeros((2, max(slot + 1, 2 * self._of.shape[1])))
            more[:, : self._of.shape[1]] = self._of
            self._of = more
