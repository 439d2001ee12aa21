"""Which arm answers for a unit: a salted hash, so it needs no memory and never changes.

A unit is whatever must always meet the same model: an account, a device, a restaurant. The formula
is public, so that anybody can check an assignment from the store alone:

    unit_hash = hex(SHA-256(UTF-8(salt) + 0x00 + UTF-8(unit)))
    bucket    = version 2 of GrowthBook's hash of (seed, unit_hash), in 10,000 buckets
    arm       = the one that owns the bucket

Only ``unit_hash`` is stored, and the salt stays with the deployment: to re-derive an arm takes the
seed, which is no secret. A new salt or a new seed deals all units anew.

Of a deployment the seed is its ``experiment_id``, and its phase says who takes part. The control
has the lowest buckets, so of two arms the second keeps its units while its share grows.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.dealing import PhasePlan
from serving.deployment import SharedArm
from serving.experiments.allocation import HASHED_UNIT, Allocation, ArmShare, allocate
from serving.experiments.buckets import BucketRange, Buckets, bucket_of, buckets_of, not_hashed

ArmT = TypeVar("ArmT", bound=SharedArm)
ArmT_co = TypeVar("ArmT_co", bound=SharedArm, covariant=True)

Reason = Literal["assigned", "override", "holdout", "outside_layer", "outside_coverage"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
Why = Literal[
    "assigned", "override", "holdout", "outside_layer", "outside_coverage", "forced", "mirrored"
]
"""Why an arm was asked: a ``Reason``, or everybody was sent to it, or a shadow's copy was."""


class Deployed(Protocol[ArmT_co]):
    """A deployment of any kind of arm."""

    @property
    def arms(self) -> tuple[ArmT_co, ...]:
        """The control first."""

    @property
    def experiment_id(self) -> str:
        """The seed of its buckets."""

    @property
    def deployment_id(self) -> str:
        """32 hex digits."""

    @property
    def phase(self) -> PhasePlan | None:
        """Who takes part; without one, everybody."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a unit meets.

    Attributes:
        arm: its name; None where the unit is not in the experiment.
        bucket: 0 … 9,999 under the experiment's seed, whatever became of the unit.
        why: the first that held of override, holdout, outside_layer, outside_coverage; or assigned.
    """

    arm: str | None
    bucket: int
    why: Reason


@dataclass(frozen=True)
class Assignments:
    """What many units meet.

    Attributes:
        arm: (n,) place in ``allocation.arms``; -1 where the unit is not in the experiment.
        bucket: (n,) 0 … 9,999 under the experiment's seed.
        why: (n,) place in ``REASONS``.
    """

    arm: NDArray[np.int64]
    bucket: Buckets
    why: NDArray[np.int8]


def unit_hash(salt: str, unit: str) -> str:
    """64 hex digits that stand for a unit, and decide its bucket."""
    return hashlib.sha256(salt.encode() + b"\0" + unit.encode()).hexdigest()


def assign(allocation: Allocation, hashed_unit: str) -> Assignment:
    """What a hashed unit meets.

    Raises:
        ExperimentError: it is no hashed unit.
    """
    if not HASHED_UNIT.fullmatch(hashed_unit):
        raise not_hashed(hashed_unit)
    bucket = bucket_of(allocation.seed, hashed_unit)
    forced = allocation.overrides.get(hashed_unit)
    if forced is not None:
        return Assignment(forced, bucket, "override")
    holdout, layer = allocation.holdout, allocation.layer
    if holdout and bucket_of(holdout.seed, hashed_unit) in holdout.buckets:
        return Assignment(None, bucket, "holdout")
    if layer:
        place = bucket_of(layer.seed, hashed_unit)
        if not any(place in owned for owned in allocation.namespace):
            return Assignment(None, bucket, "outside_layer")
    for arm, owned in zip(allocation.arms, allocation.ranges, strict=True):
        if bucket in owned:
            return Assignment(arm.name, bucket, "assigned")
    return Assignment(None, bucket, "outside_coverage")


def assign_all(
    allocation: Allocation, hashed_units: Sequence[str] | NDArray[np.str_]
) -> Assignments:
    """``assign`` for millions of hashed units.

    Args:
        allocation: of the experiment.
        hashed_units: (n,) as ``unit_hash`` makes them.

    Raises:
        ExperimentError: one of them is no hashed unit.
    """
    units = np.asarray(hashed_units, dtype=np.str_)
    bucket = buckets_of(allocation.seed, units)
    arm = np.full(len(units), -1, dtype=np.int64)
    for place, owned in enumerate(allocation.ranges):
        arm[_within(bucket, (owned,))] = place
    why = np.where(arm < 0, _code("outside_coverage"), _code("assigned"))
    if layer := allocation.layer:
        why[~_within(buckets_of(layer.seed, units), allocation.namespace)] = _code("outside_layer")
    if holdout := allocation.holdout:
        why[_within(buckets_of(holdout.seed, units), (holdout.buckets,))] = _code("holdout")
    arm[why != _code("assigned")] = -1
    names = [each.name for each in allocation.arms]
    for unit, name in allocation.overrides.items():
        forced = units == unit
        arm[forced], why[forced] = names.index(name), _code("override")
    return Assignments(arm=arm, bucket=bucket, why=why)


class Dealer(Generic[ArmT]):
    """Deals out the units of one deployment; whoever takes no part meets the control."""

    def __init__(self, deployment: Deployed[ArmT]):
        """Make the allocation once, and check it.

        Raises:
            ExperimentError: it is none; see ``Allocation``.
        """
        self.allocation = allocation_of(deployment)
        self._control = deployment.arms[0]
        self._arms = {arm.name: arm for arm in deployment.arms}

    def meet(self, hashed_unit: str, *, forced: str | None = None) -> tuple[ArmT, Why]:
        """The arm that answers for a hashed unit, and why.

        Args:
            hashed_unit: as ``unit_hash`` makes it.
            forced: the arm that answers everybody now, whatever was dealt.

        Raises:
            ExperimentError: it is no hashed unit, or there is no such arm.
        """
        if forced is not None:
            if forced not in self._arms:
                raise ExperimentError(
                    f"forced={forced!r} is no arm; the deployment has {sorted(self._arms)!r}"
                )
            return self._arms[forced], "forced"
        met = assign(self.allocation, hashed_unit)
        return (self._control if met.arm is None else self._arms[met.arm]), met.why


def allocation_of(deployment: Deployed[SharedArm]) -> Allocation:
    """The allocation by which a deployment's units are dealt."""
    shares = [ArmShare(arm.name, arm.share) for arm in deployment.arms]
    return allocate(deployment.experiment_id, shares, deployment.phase)


def _code(reason: Reason) -> np.int8:
    return np.int8(REASONS.index(reason))


def _within(buckets: Buckets, ranges: Sequence[BucketRange]) -> NDArray[np.bool_]:
    inside = np.zeros(len(buckets), dtype=np.bool_)
    for owned in ranges:
        inside |= (buckets >= owned.start) & (buckets < owned.stop)
    return inside
