"""How intense a made-up review is: signed points in, a step on the guideline's scale out."""

from collections.abc import Sequence
from typing import Final

from data.contract import Intensity

_STRONG: Final = 2.0
_EXTREME: Final = 3.0


def intensity_of(points: Sequence[float], overall: Intensity | None) -> Intensity:
    """The step on the scale that signed points add up to.

    Praise alone is +2 from one strong word on. Blame is -2 only for the vile, for two strong
    complaints, or where the summing-up warns. Where praise and blame both stand, the stronger side
    decides and must clearly prevail for an end of the scale. A summing-up has the last word on the
    sign, and a mild one ("조금 아쉬워요") keeps all but the vile from -2.

    Args:
        points: one for each clause, feeling and summing-up: 0.5 faint, 1 mild, 2 strong, 3 extreme.
        overall: what the review says of itself as a whole; None where it does not.
    """
    praise = sum(one for one in points if one > 0)
    blame = -sum(one for one in points if one < 0)
    net = praise - blame
    if overall == 0 or (overall is None and abs(net) < 1):
        return 0
    if (net if overall is None else overall) > 0:
        far = net >= _EXTREME if blame else max(points) >= _STRONG
        return 2 if far or overall == 2 else 1  # noqa: PLR2004  # the scale's end
    complaints = -sum(one for one in points if one <= -_STRONG)
    piled = complaints >= 2 * _STRONG and overall != -1
    far = min(points) <= -_EXTREME or (piled and -net >= _EXTREME)
    return -2 if far or overall == -2 else -1  # noqa: PLR2004  # the scale's end
