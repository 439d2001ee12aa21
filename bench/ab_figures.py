"""One figure of the experiment framework: what was measured, its bar, and on what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AbFigure:
    """A figure of `make ab-sim`.

    Attributes:
        value: as measured.
        bar: what it must reach, like ">= 0.3".
        conditions: on what, how often, with which seeds.
        met: whether it reaches its bar.
    """

    value: float
    bar: str
    conditions: str
    met: bool
