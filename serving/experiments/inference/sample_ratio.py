"""Whether the arms got the units that they were to get; if not, a comparison is void."""

from typing import Final

from scipy import stats

from data.errors import ExperimentError
from serving.experiments.inference.levels import check_share

_EXACT_UP_TO: Final = 100_000
"""Units up to which the sample-ratio test is the exact binomial one."""


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
