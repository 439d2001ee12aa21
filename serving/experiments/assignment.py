"""Which arm answers for a unit: a salted hash, so it needs no memory and never changes.

A unit is whatever must always meet the same model: an account, a device, a restaurant. The formula
is public, so that anybody can check an assignment from the store alone:

    unit_hash = hex(SHA-256(UTF-8(salt) + 0x00 + UTF-8(unit)))
    bucket    = integer(first 16 hex digits of unit_hash) mod 10,000
    arm       = the first arm, champion before challenger, with bucket < cumulative share * 10,000

Only ``unit_hash`` is stored. The challenger takes the highest buckets, so when its share grows, a
unit that already met the challenger stays with it. A new salt deals all units anew.
"""

import hashlib
from collections.abc import Iterable
from typing import Protocol, TypeVar

import numpy as np

from data.errors import ExperimentError
from serving.deployment import BUCKETS, SharedArm

ArmT_co = TypeVar("ArmT_co", bound=SharedArm, covariant=True)


class Deployed(Protocol[ArmT_co]):
    """A deployment of any kind of arm."""

    @property
    def arms(self) -> tuple[ArmT_co, ...]:
        """Champion first."""

    @property
    def deployment_id(self) -> str:
        """32 hex digits."""


def unit_hash(salt: str, unit: str) -> str:
    """64 hex digits that stand for a unit, and decide its bucket."""
    return hashlib.sha256(salt.encode() + b"\0" + unit.encode()).hexdigest()


def bucket_of(hashed_unit: str) -> int:
    """Bucket 0 … 9,999 of a hashed unit."""
    return int(hashed_unit[:16], 16) % BUCKETS


def arm_of(deployment: Deployed[ArmT_co], hashed_unit: str) -> ArmT_co:
    """The arm that answers for a hashed unit."""
    bucket, edge = bucket_of(hashed_unit), 0
    for arm in deployment.arms:
        edge += round(arm.share * BUCKETS)
        if bucket < edge:
            return arm
    raise ExperimentError(
        f"bucket {bucket!r} lies beyond the shares of deployment {deployment.deployment_id!r}; "
        "make them add up to 1"
    )


def uniformity_p(salt: str, units: Iterable[str], *, cells: int = 100) -> float:
    """Chi-square p-value that units fall evenly into ``cells`` equal ranges of buckets.

    A sanity check of a salt on real units: a value below 0.001 says that the hash is not the one
    above, or that the units are far fewer than they look.

    Raises:
        ExperimentError: fewer than five units per cell, which the test cannot judge.
    """
    from scipy import stats  # the gateway starts two seconds sooner without it

    counts = np.zeros(cells, dtype=np.int64)
    for unit in units:
        counts[bucket_of(unit_hash(salt, unit)) * cells // BUCKETS] += 1
    if counts.sum() < 5 * cells:
        raise ExperimentError(
            f"{int(counts.sum())!r} units are too few for {cells!r} cells; "
            f"pass at least {5 * cells}"
        )
    return float(stats.chisquare(counts).pvalue)
