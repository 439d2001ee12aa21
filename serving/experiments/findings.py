"""What a method finds of one difference, and how it is to be looked for."""

from dataclasses import dataclass
from typing import Final

from serving.experiments.report import Method, Said

TOO_FEW: Final = Said(
    en="Too few units, or too few that differ, for an interval that holds at every look.",
    ko="언제 보아도 유효한 구간을 내기에는 단위가 부족하거나 서로 다른 값이 부족합니다.",
)


@dataclass(frozen=True)
class Settings:
    """What all comparisons of a report share.

    Attributes:
        alpha: of one interval.
        tuned_for_units: units of both arms at which it is narrowest.
        burn_in: units that each arm must have.
        exact: whether small arms get an exact method for one look, which takes up to a second.
    """

    alpha: float
    tuned_for_units: int
    burn_in: int
    exact: bool = True


@dataclass(frozen=True)
class Finding:
    """What a method found of a difference, arm less control."""

    method: Method
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    variance_cut: float | None = None
    note: Said | None = None
