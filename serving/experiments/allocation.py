"""An allocation: which buckets of an experiment's units go to which arm, and who is left out.

It is checked when it is made, and does not change. Four things say what a unit meets:

    overrides   units whose arm is named, such as testers'
    holdout     a share of all units that meets no experiment, by a seed of its own
    layer       experiments that no unit meets two of: they share the layer's seed, and each owns
                buckets of it that no other owns
    arms        their shares, of which the coverage is dealt, by the experiment's own seed

Experiments that share a layer or a holdout hash their units with one salt, or the same unit is
another one in each. Every seed deals alone: with one seed for layer and experiment, the units that
the layer lets in would be those of one arm.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from data.errors import ExperimentError
from serving.dealing import PhasePlan
from serving.experiments.buckets import (
    UNIT_DIGITS,
    BucketRange,
    bucket_ranges,
    not_hashed,
    whole_buckets,
)

HASHED_UNIT: Final = re.compile(rf"[0-9a-f]{{{UNIT_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class ArmShare:
    """An arm and its share of the units that are dealt; a multiple of 1/10,000."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Namespace:
    """The buckets of a layer that one experiment owns."""

    experiment_id: str
    buckets: tuple[BucketRange, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """Experiments that no unit meets two of.

    Raises:
        ExperimentError: the seed is empty, an experiment is unnamed or stands twice, or two ranges
            of buckets overlap.
    """

    seed: str
    namespaces: tuple[Namespace, ...]

    def __post_init__(self) -> None:
        _check_name("layer.seed", self.seed)
        _check_names("layer.namespaces", [each.experiment_id for each in self.namespaces])
        owned = sorted(
            (owned.start, owned.stop, each.experiment_id)
            for each in self.namespaces
            for owned in each.buckets
            if len(owned)
        )
        for (start, stop, one), (next_start, next_stop, other) in pairwise(owned):
            if next_start < stop:
                raise ExperimentError(
                    f"layer.namespaces: {one!r} owns buckets {start!r} to {stop!r} and {other!r} "
                    f"owns {next_start!r} to {next_stop!r}; let each bucket have one owner"
                )

    def buckets(self, experiment_id: str) -> tuple[BucketRange, ...]:
        """The buckets of an experiment.

        Raises:
            ExperimentError: it owns none.
        """
        for each in self.namespaces:
            if each.experiment_id == experiment_id and any(len(owned) for owned in each.buckets):
                return each.buckets
        raise ExperimentError(
            f"experiment_id={experiment_id!r} owns no buckets of the layer; give it some in "
            "layer.namespaces"
        )


@dataclass(frozen=True, slots=True)
class Holdout:
    """Units that meet no experiment: the lowest buckets of a seed of its own.

    A larger share adds units and lets none go.

    Raises:
        ExperimentError: the seed is empty, or the share is none or finer than 1/10,000.
    """

    seed: str
    share: float

    def __post_init__(self) -> None:
        _check_name("holdout.seed", self.seed)
        whole_buckets("holdout.share", self.share)

    @property
    def buckets(self) -> BucketRange:
        """The buckets held out."""
        return BucketRange(0, whole_buckets("holdout.share", self.share))


@dataclass(frozen=True)
class Allocation:
    """Which units of an experiment meet which arm.

    Attributes:
        experiment_id: what its exposures are stored under, and what a layer knows it by.
        seed: of its buckets; another one deals all units anew.
        arms: in the order that their buckets stand in: keep it, or units change their arm.
        coverage: share of the units that is dealt at all; a multiple of 1/10,000.
        layer: which other experiments its units do not meet.
        holdout: units that meet no experiment.
        overrides: arm's name by hashed unit. These units were not dealt by chance: an analysis
            leaves them out.
        ranges: the buckets that each arm owns, in the order of ``arms``.

    Raises:
        ExperimentError: a name is empty or stands twice, shares or coverage are none or do not add
            up, seeds are the same, or an override names no unit or no arm.
    """

    experiment_id: str
    seed: str
    arms: tuple[ArmShare, ...]
    coverage: float = 1.0
    layer: Layer | None = None
    holdout: Holdout | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    ranges: tuple[BucketRange, ...] = field(init=False, repr=False, compare=False)
    namespace: tuple[BucketRange, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name("experiment_id", self.experiment_id)
        _check_names("arms", [arm.name for arm in self.arms])
        self._check_seeds()
        self._check_overrides()
        ranges = bucket_ranges([arm.share for arm in self.arms], self.coverage)
        namespace = self.layer.buckets(self.experiment_id) if self.layer else ()
        object.__setattr__(self, "ranges", ranges)
        object.__setattr__(self, "namespace", namespace)
        # A copy of its own, which nobody can change behind the checks.
        object.__setattr__(self, "overrides", MappingProxyType(dict(self.overrides)))

    @property
    def expected_shares(self) -> dict[str, float]:
        """Each arm's share of the buckets that are dealt: what a sample-ratio check expects.

        Under a coverage below 1 it may differ from the arm's share by what rounding to whole
        buckets does. With nothing dealt, every share is 0.
        """
        dealt = sum(len(owned) for owned in self.ranges)
        return {
            arm.name: len(owned) / dealt if dealt else 0.0
            for arm, owned in zip(self.arms, self.ranges, strict=True)
        }

    def _check_seeds(self) -> None:
        seeds = {"seed": self.seed}
        _check_name("seed", self.seed)
        if self.layer:
            seeds["layer.seed"] = self.layer.seed
        if self.holdout:
            seeds["holdout.seed"] = self.holdout.seed
        if len(set(seeds.values())) < len(seeds):
            raise ExperimentError(
                f"seeds are {seeds!r}; take another for each, or the same buckets are dealt twice"
            )

    def _check_overrides(self) -> None:
        names = [arm.name for arm in self.arms]
        for unit, name in self.overrides.items():
            if not HASHED_UNIT.fullmatch(unit):
                raise not_hashed(unit)
            if name not in names:
                raise ExperimentError(
                    f"overrides[{unit[:8]!r}…]={name!r} is no arm; name one of {names!r}"
                )


def allocate(experiment_id: str, arms: Sequence[ArmShare], phase: PhasePlan | None) -> Allocation:
    """By what an experiment's units are dealt; the seed is its name in every phase.

    Args:
        experiment_id: whose.
        arms: the control first: its buckets are the lowest.
        phase: who takes part; without one, everybody.

    Raises:
        ExperimentError: that is no allocation; see ``Allocation``.
    """
    if phase is None:
        return Allocation(experiment_id=experiment_id, seed=experiment_id, arms=tuple(arms))
    layer = None
    if phase.layer is not None:
        place = BucketRange(phase.layer.start, phase.layer.stop)
        namespace = Namespace(experiment_id=experiment_id, buckets=(place,))
        layer = Layer(seed=f"layer:{phase.layer.name}", namespaces=(namespace,))
    return Allocation(
        experiment_id=experiment_id,
        seed=experiment_id,
        arms=tuple(arms),
        coverage=phase.coverage,
        layer=layer,
        holdout=Holdout(seed="holdout:", share=phase.holdout) if phase.holdout else None,
        overrides=phase.overrides,
    )


def _check_name(where: str, name: str) -> None:
    if not name.strip():
        raise ExperimentError(f"{where}={name!r} is empty; write a name")


def _check_names(where: str, names: list[str]) -> None:
    if not names:
        raise ExperimentError(f"{where}={names!r} is empty; name at least one")
    for name in names:
        _check_name(f"a name in {where}", name)
    if len(set(names)) < len(names):
        raise ExperimentError(f"{where} are {names!r}; name each once")
