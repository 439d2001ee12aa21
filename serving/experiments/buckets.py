"""Buckets: a published hash of a seed and a unit, and the ranges of buckets that arms own.

A seed and a hashed unit come in, a bucket 0 … 9,999 goes out. The hash is version 2 of GrowthBook's
SDKs (https://docs.growthbook.io/lib/build-your-own, "Hashing"), so that any of them, or a few lines
of SQL (serving/experiments/assignment_sql.py), finds the same bucket:

    bucket = fnv1a32(decimal(fnv1a32(seed + unit))) mod 10,000        (the SDK divides by 10,000)

FNV-1a of 32 bits: RFC 9923, "The FNV Non-Cryptographic Hash Algorithm" (Fowler, Noll, Vo, others).
Here it walks UTF-16 code units, as the SDKs for JavaScript and Python do; those for Rust and Elixir
walk UTF-8 bytes. A hashed unit is 64 hex digits, so only a seed outside ASCII tells them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.dealing import BUCKETS

FNV_OFFSET: Final = 0x811C9DC5
FNV_PRIME: Final = 0x01000193
_MASK: Final = 0xFFFFFFFF
UNIT_DIGITS: Final = 64
"""Hex digits of a hashed unit."""

_ROUNDING: Final = 1e-6
_CHUNK: Final = 16_384
"""Units hashed at once: their characters stay in the processor's cache."""

Buckets = NDArray[np.int64]


def fnv1a32(text: str) -> int:
    """FNV-1a of 32 bits over a text's UTF-16 code units."""
    return _walk(FNV_OFFSET, text)


@lru_cache(maxsize=1_024)
def seed_state(seed: str) -> int:
    """Where the walk stands after a seed: ``fnv1a32(seed)``, kept because seeds are few."""
    return fnv1a32(seed)


def bucket_of(seed: str, unit: str) -> int:
    """Bucket 0 … 9,999 of a unit under a seed."""
    return _walk(FNV_OFFSET, str(_walk(seed_state(seed), unit))) % BUCKETS


def buckets_of(seed: str, hashed_units: Sequence[str] | NDArray[np.str_]) -> Buckets:
    """``bucket_of`` for millions of hashed units.

    Args:
        seed: of an experiment, layer or holdout.
        hashed_units: (n,) as ``unit_hash`` makes them.

    Returns:
        (n,) buckets 0 … 9,999.

    Raises:
        ExperimentError: one of them is no hashed unit.
    """
    units = np.ascontiguousarray(hashed_units, dtype=np.str_).reshape(-1)
    buckets = np.empty(len(units), dtype=np.int64)
    for start in range(0, len(units), _CHUNK):
        part = units[start : start + _CHUNK]
        buckets[start : start + _CHUNK] = _hash(seed_state(seed), _hex_digits(part))
    return buckets


@dataclass(frozen=True, slots=True)
class BucketRange:
    """Buckets from ``start`` up to, and without, ``stop``.

    Raises:
        ExperimentError: it is no range of 0 … 10,000.
    """

    start: int
    stop: int

    def __post_init__(self) -> None:
        whole = isinstance(self.start, int) and isinstance(self.stop, int)
        if not whole or not 0 <= self.start <= self.stop <= BUCKETS:
            raise ExperimentError(
                f"buckets from {self.start!r} to {self.stop!r} are no range; name whole numbers "
                f"with 0 <= start <= stop <= {BUCKETS}"
            )

    def __contains__(self, bucket: int) -> bool:
        return self.start <= bucket < self.stop

    def __len__(self) -> int:
        return self.stop - self.start


def whole_buckets(field: str, share: float) -> int:
    """A share from 0 to 1 in buckets.

    Raises:
        ExperimentError: it lies outside, or is finer than a bucket; names ``field``.
    """
    if not 0.0 <= share <= 1.0:  # NaN is outside too
        raise ExperimentError(f"{field}={share!r} is no share; take one between 0 and 1")
    buckets = round(share * BUCKETS)
    if abs(share * BUCKETS - buckets) > _ROUNDING:
        raise ExperimentError(
            f"{field}={share!r} is finer than 1/{BUCKETS}; round it to 4 decimals"
        )
    return buckets


def bucket_ranges(shares: Sequence[float], coverage: float = 1.0) -> tuple[BucketRange, ...]:
    """The buckets that each arm owns, as GrowthBook's ``getBucketRanges`` has them.

    An arm's region begins where the shares before it end, and is as wide as its own share; of it
    the arm owns the first ``coverage``. So a larger coverage adds units and moves none. Everything
    is counted in whole buckets, a part of one as a whole. The SDK counts in floats, so a bucket
    right on an edge may fall on its other side there (0.8 * 0.2 is a little more than 0.16).

    Args:
        shares: of the arms, in their order; they add up to 1.
        coverage: of the units, from 0 to 1.

    Raises:
        ExperimentError: a share or the coverage is no share, or the shares do not add up to 1.
    """
    covered = whole_buckets("coverage", coverage)
    widths = [whole_buckets(f"shares[{place}]", share) for place, share in enumerate(shares)]
    if sum(widths) != BUCKETS:
        raise ExperimentError(
            f"shares={list(shares)!r} add up to {sum(widths) / BUCKETS!r}; make them add up to 1"
        )
    starts = [sum(widths[:place]) for place in range(len(widths))]
    return tuple(
        BucketRange(start, start - (-width * covered // BUCKETS))  # rounded up
        for start, width in zip(starts, widths, strict=True)
    )


def uniformity_p(
    seed: str, hashed_units: Sequence[str] | NDArray[np.str_], *, cells: int = 100
) -> float:
    """Chi-square p-value that units fall evenly into ``cells`` equal ranges of buckets.

    A sanity check of a seed on real units: a value below 0.001 says that the hash is not the one
    above, or that the units are far fewer than they look.

    Raises:
        ExperimentError: fewer than five units per cell, which the test cannot judge, or cells that
            do not divide the buckets.
    """
    from scipy import stats  # the gateway starts two seconds sooner without it

    if cells < 2 or BUCKETS % cells:  # noqa: PLR2004 - one cell compares nothing
        raise ExperimentError(f"cells={cells!r} do not divide {BUCKETS} buckets; take 100")
    if len(hashed_units) < 5 * cells:
        raise ExperimentError(
            f"{len(hashed_units)!r} units are too few for {cells!r} cells; "
            f"pass at least {5 * cells}"
        )
    counts = np.bincount(buckets_of(seed, hashed_units) * cells // BUCKETS, minlength=cells)
    return float(stats.chisquare(counts).pvalue)


def _walk(state: int, text: str) -> int:
    if text.isascii():
        for code in text.encode():
            state = (state ^ code) * FNV_PRIME & _MASK
        return state
    # A lone surrogate is a code unit like any other, as it is in JavaScript.
    units = text.encode("utf-16-le", "surrogatepass")
    for low, high in zip(units[::2], units[1::2], strict=True):
        state = (state ^ (low | high << 8)) * FNV_PRIME & _MASK
    return state


def _hex_digits(units: NDArray[np.str_]) -> NDArray[np.uint32]:
    """(64, n) characters of hashed units."""
    codes = units.view(np.uint32).reshape(len(units), -1)
    digits = np.zeros((len(units), UNIT_DIGITS), dtype=np.uint32)
    digits[:, : codes.shape[1]] = codes[:, :UNIT_DIGITS]
    valid = ((digits >= ord("0")) & (digits <= ord("9"))) | (
        (digits >= ord("a")) & (digits <= ord("f"))
    )
    wrong = ~valid.all(axis=1) | codes[:, UNIT_DIGITS:].any(axis=1)
    if wrong.any():
        raise not_hashed(str(units[int(wrong.argmax())]))
    return np.ascontiguousarray(digits.T)


def not_hashed(unit: str) -> ExperimentError:
    """What is said of a unit that is no hash. It is not shown: it may name a person."""
    return ExperimentError(
        f"unit of {len(unit)!r} characters is no hashed unit of {UNIT_DIGITS} hex digits; pass "
        "what unit_hash(salt, unit) returns"
    )


def _hash(start: int, characters: NDArray[np.uint32]) -> Buckets:
    """Buckets of units whose characters stand in the rows of (64, n), from a seed's state on."""
    prime = np.uint32(FNV_PRIME)
    state = np.full(characters.shape[1], start, dtype=np.uint32)
    for codes in characters:
        state = (state ^ codes) * prime
    second: NDArray[np.uint32] = np.full_like(state, FNV_OFFSET)
    for power in (np.uint32(10**exponent) for exponent in range(9, -1, -1)):
        code = state // power % np.uint32(10) + np.uint32(ord("0"))
        written = (state >= power) | (power == 1)  # no leading zeros
        second = np.where(written, (second ^ code) * prime, second)
    return (second % np.uint32(BUCKETS)).astype(np.int64)
