"""Did the arms get the units that they were meant to get? Counts and shares in, p-values out.

A sample ratio that chance does not explain means that traffic is lost or misplaced somewhere, so
that no result may be read. Two tests of the same counts:

- one look at a size fixed beforehand: ``sample_ratio_p`` (two arms) and ``fixed_look_p``;
- a look after every unit, stopping at any of them: ``log_e_value`` and ``ratio_sequence``, after
  Lindon & Malek, "Anytime-valid inference for multinomial count data" (arXiv 2011.03567). Not
  asymptotic: the level holds from the first unit on.

Under the alternative the arms' true shares have a Dirichlet prior around the intended ones, with
``concentration`` pseudo-units. The Bayes factor of the counts against the intended shares is an
e-value: its expectation is at most 1 at any stopping time, so it exceeds 1/alpha ever with
probability at most alpha (Ville's inequality).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from data.errors import ExperimentError
from serving.experiments.inference.levels import check_share, check_shares

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
_EXACT_UP_TO: Final = 100_000
"""Units up to which the sample-ratio test is the exact binomial one."""
_LEAST_EXPECTED: Final = 5.0
"""Units that chi-square's approximation wants in each arm (Cochran 1954)."""
_MOST_UNITS: Final = 1e10
"""Beyond it the closed form's log-gammas, some 1e12, leave less than four places of the result."""


@dataclass(frozen=True)
class RatioSequence:
    """The test after each look.

    Attributes:
        units: (…, looks) units until then.
        log_e: (…, looks) natural logarithm of the e-value.
        p: (…, looks) anytime-valid p-value: the running minimum of 1/e, at most 1.
    """

    units: Floats
    log_e: Floats
    p: Floats


def _counts(counts: ArrayLike, arms: int) -> Floats:
    values = np.asarray(counts, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] != arms:
        raise ExperimentError(
            f"counts of shape {values.shape!r} for {arms!r} shares; the last axis holds one count "
            "per arm"
        )
    if values.size and not (np.isfinite(values).all() and values.min() >= 0.0):
        raise ExperimentError("a count is negative, infinite or missing; count units from 0 up")
    if values.size and values.sum(axis=-1).max() > _MOST_UNITS:
        raise ExperimentError(
            f"{float(values.sum(axis=-1).max())!r} units are more than the {_MOST_UNITS:.0e} that "
            "are computed to four places; count units, not events"
        )
    return values


def sample_ratio_p(challengers: int, units: int, *, challenger_share: float) -> float:
    """Two-sided p-value that so many of the units met the challenger by chance.

    Exact binomial, and chi-square beyond 100,000 units where both agree.

    Raises:
        ExperimentError: there are no units, or the share leaves an arm empty.
    """
    check_share(challenger_share)
    if not 0 <= challengers <= units or units == 0:
        raise ExperimentError(f"{challengers!r} of {units!r} units is not a count to test")
    if units <= _EXACT_UP_TO:
        return float(stats.binomtest(challengers, units, challenger_share).pvalue)
    seen = [challengers, units - challengers]
    expected = [units * challenger_share, units * (1.0 - challenger_share)]
    return float(stats.chisquare(seen, expected).pvalue)


def fixed_look_p(counts: Sequence[int] | Counts, *, shares: Sequence[float] | Floats) -> float:
    """P-value of the counts of any number of arms, for one look at a size fixed beforehand.

    Two arms: ``sample_ratio_p``. More: Pearson's chi-square with arms - 1 degrees of freedom.

    Args:
        counts: (arms,) units.
        shares: (arms,) intended shares, adding up to 1.

    Raises:
        ExperimentError: shares or counts are out of range, there are no units, or fewer than five
            are expected in an arm of three or more, which chi-square cannot judge.
    """
    wanted = check_shares(shares)
    seen = _counts(counts, wanted.size)
    if seen.ndim != 1 or seen.sum() == 0:
        raise ExperimentError(f"counts={counts!r}; one look takes one count per arm, and some unit")
    if wanted.size == 2:  # noqa: PLR2004
        return sample_ratio_p(int(seen[1]), int(seen.sum()), challenger_share=float(wanted[1]))
    expected = wanted * seen.sum()
    if expected.min() < _LEAST_EXPECTED:
        raise ExperimentError(
            f"counts={counts!r} with shares={shares!r} expect {float(expected.min())!r} units in "
            "an arm and chi-square wants 5; use ratio_sequence, which holds at any size"
        )
    return float(stats.chisquare(seen, expected).pvalue)


def concentration_for(planned_units: int, *, arms: int, alpha: float) -> float:
    """The prior's pseudo-units with which the alarm is most sensitive at ``planned_units``.

    In the normal approximation, with y = 1 + planned_units / concentration and d = arms - 1, the
    alarm sounds where chi-square exceeds y/(y - 1) * (d log y - 2 log alpha). Its minimum solves
    y - log y = 1 - 2 log(alpha) / d, which Lambert's W_-1 inverts. Choose before the first look.

    Raises:
        ExperimentError: no planned units, fewer than two arms, or alpha not between 0 and 1.
    """
    if not 0.0 < alpha < 1.0:
        raise ExperimentError(
            f"alpha={alpha!r} is not a level; take one between 0 and 1, like 0.002"
        )
    if arms < 2:  # noqa: PLR2004
        raise ExperimentError(f"arms={arms!r}; a sample ratio takes at least two")
    if planned_units < 1:
        raise ExperimentError(f"planned_units={planned_units!r}; plan for at least 1 unit")
    below_one = -np.exp(2.0 * np.log(alpha) / (arms - 1) - 1.0)
    return float(planned_units / (-special.lambertw(below_one, k=-1).real - 1.0))


def log_e_value(
    counts: ArrayLike, *, shares: Sequence[float] | Floats, concentration: float
) -> Floats:
    """Logarithm of the evidence of the counts against the shares (arXiv 2011.03567, section 2).

    Args:
        counts: (…, arms) units until a look. Fractions are taken too, for what-if questions.
        shares: (arms,) intended shares, adding up to 1.
        concentration: pseudo-units of the prior, from ``concentration_for``.

    Returns:
        (…,) log e; 0 without units. Evidence enough at level alpha: above log(1/alpha).

    Raises:
        ExperimentError: shares, counts or concentration are out of range.
    """
    wanted = check_shares(shares)
    seen = _counts(counts, wanted.size)
    if not (np.isfinite(concentration) and concentration > 0.0):
        raise ExperimentError(
            f"concentration={concentration!r}; take a positive one from concentration_for"
        )
    prior = concentration * wanted
    # Arm by arm, so that millions of looks need a few arrays of their length, not of arms times it.
    total = special.gammaln(concentration) - special.gammaln(concentration + seen.sum(axis=-1))
    for arm, (before, share) in enumerate(zip(prior, wanted, strict=True)):
        units = seen[..., arm]
        total += special.gammaln(before + units) - special.gammaln(before) - units * np.log(share)
    return np.asarray(total)


def ratio_sequence(
    counts: ArrayLike, *, shares: Sequence[float] | Floats, concentration: float
) -> RatioSequence:
    """The test after each look, at as many looks as one likes.

    Args:
        counts: (…, looks, arms) units until each look, never falling from one to the next.
        shares: (arms,) intended shares, the same at all looks: other shares are another phase.
        concentration: pseudo-units of the prior, from ``concentration_for``.

    Raises:
        ExperimentError: an argument is out of range, or a count falls.
    """
    log_e = log_e_value(counts, shares=shares, concentration=concentration)
    seen = np.asarray(counts, dtype=np.float64)
    if seen.ndim < 2:  # noqa: PLR2004
        raise ExperimentError(f"counts of shape {seen.shape!r}; pass looks × arms")
    if (np.diff(seen, axis=-2) < 0.0).any():
        raise ExperimentError(
            "a count falls from one look to the next; pass running totals in order of time"
        )
    p = np.exp(-np.maximum.accumulate(np.maximum(log_e, 0.0), axis=-1))
    return RatioSequence(units=seen.sum(axis=-1), log_e=log_e, p=p)


def running_counts(arm: NDArray[np.integer], *, arms: int) -> Counts:
    """(…, units, arms) counts after each unit, from (…, units) arm numbers 0 … arms - 1.

    Raises:
        ExperimentError: a number is no arm's.
    """
    if arm.size and not 0 <= arm.min() <= arm.max() < arms:
        raise ExperimentError(
            f"arm numbers reach from {int(arm.min())!r} to {int(arm.max())!r}; number the arms "
            f"0 … {arms - 1}"
        )
    return np.stack(
        [np.cumsum(arm == number, axis=-1, dtype=np.int64) for number in range(arms)], axis=-1
    )
