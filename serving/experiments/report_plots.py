"""The report's drawings as inline SVG: a sequence over units, and an interval on one line.

Numbers come in, SVG text goes out. Nothing of what a user wrote is in it but numbers and the fixed
words that are handed in, and those are escaped; colours are the page's own (CSS classes).
"""

from collections.abc import Callable, Sequence
from typing import Final

from markupsafe import Markup, escape

from serving.experiments.report import MetricRow, SegmentRow
from serving.experiments.verdict import SequencePoint

_WIDTH: Final = 640
_HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 12, 12, 34
_ROW_WIDTH: Final = 180
_ROW_HEIGHT: Final = 22
_SPREAD: Final = 3.0
"""The last interval fills a third of the height, so that what it became can be read."""


def sequence_svg(
    points: Sequence[SequencePoint],
    *,
    margin: float,
    direction: str,
    shown: Callable[[float], str],
    units: str,
) -> Markup:
    """An interval after ever more units, with zero and the accepted loss.

    Args:
        points: ascending, at least one.
        margin: of the metric.
        direction: which way is better.
        shown: a difference as text.
        units: the word for the axis.
    """
    last = points[-1]
    border = margin if direction == "decrease" else -margin
    reach = max(abs(last.estimate), abs(last.low), abs(last.high), margin) or 1.0
    reach *= _SPREAD / 2
    span = max(last.n - points[0].n, 1)

    def x(n: int) -> float:
        return _LEFT + (n - points[0].n) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (reach - min(max(value, -reach), reach)) / (2 * reach)
        return _TOP + share * (_HEIGHT - _TOP - _BOTTOM)

    upper = [f"{x(p.n):.1f},{y(p.high):.1f}" for p in points]
    lower = [f"{x(p.n):.1f},{y(p.low):.1f}" for p in reversed(points)]
    line = [f"{x(p.n):.1f},{y(p.estimate):.1f}" for p in points]
    parts = [f'<polygon class="band" points="{" ".join(upper + lower)}"/>']
    for value in (-reach, -reach / 2, 0.0, reach / 2, reach):
        kind = "zero" if value == 0.0 else "grid"
        parts.append(_level(kind, y(value), shown(value)))
    if margin:
        parts.append(_level("margin", y(border), ""))
    parts.append(f'<polyline class="line" points="{" ".join(line)}"/>')
    for n in sorted({points[0].n, (points[0].n + last.n) // 2, last.n}):
        middle = "end" if n == last.n else "start" if n == points[0].n else "middle"
        parts.append(
            f'<text class="tick" x="{x(n):.1f}" y="{_HEIGHT - 18}" text-anchor="{middle}">{n:,}'
            "</text>"
        )
    parts.append(
        f'<text class="tick" x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_HEIGHT - 3}" '
        f'text-anchor="middle">{escape(units)}</text>'
    )
    return _svg(_WIDTH, _HEIGHT, "plot", parts)


def interval_svg(row: MetricRow, reach: float | None = None) -> Markup:
    """A metric's interval on one line: to the right is better, the dashed line is what is accepted.

    Args:
        row: with a difference, or an empty line is drawn.
        reach: what either side stands for; by default what this row needs.
    """
    flip = -1.0 if row.direction == "decrease" else 1.0
    return _line(row.difference, row.low, row.high, row.margin, flip, reach, row.reading)


def segment_svg(row: SegmentRow, *, margin: float, direction: str, reach: float) -> Markup:
    """The same of a segment; all of one table have the same reach."""
    flip = -1.0 if direction == "decrease" else 1.0
    return _line(row.difference, row.low, row.high, margin, flip, reach, "undecided")


def _line(
    difference: float | None,
    low: float | None,
    high: float | None,
    margin: float,
    flip: float,
    reach: float | None,
    reading: str,
) -> Markup:
    ends = [value for value in (low, high, difference, margin) if value is not None]
    reach = reach or 1.15 * max((abs(value) for value in ends), default=1.0) or 1.0
    half, middle = _ROW_WIDTH / 2, _ROW_HEIGHT / 2

    def x(value: float) -> float:
        return half + min(max(flip * value / reach, -1.0), 1.0) * (half - 4)

    parts = [f'<line class="zero" x1="{half}" x2="{half}" y1="0" y2="{_ROW_HEIGHT}"/>']
    if margin:
        at = x(-flip * margin)
        parts.append(
            f'<line class="margin" x1="{at:.1f}" x2="{at:.1f}" y1="2" y2="{_ROW_HEIGHT - 2}"/>'
        )
    if low is not None and high is not None:
        parts.append(
            f'<line class="reach {escape(reading)}" x1="{x(low):.1f}" x2="{x(high):.1f}" '
            f'y1="{middle}" y2="{middle}"/>'
        )
    if difference is not None:
        parts.append(
            f'<circle class="dot {escape(reading)}" cx="{x(difference):.1f}" cy="{middle}" r="4"/>'
        )
    return _svg(_ROW_WIDTH, _ROW_HEIGHT, "row", parts)


def _level(kind: str, y: float, text: str) -> str:
    end = _WIDTH - _RIGHT
    line = f'<line class="{kind}" x1="{_LEFT}" x2="{end}" y1="{y:.1f}" y2="{y:.1f}"/>'
    if not text:
        return line
    return (
        f'{line}<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
        f"{escape(text)}</text>"
    )


def _svg(width: int, height: int, kind: str, parts: Sequence[str]) -> Markup:
    # Our own SVG: numbers, and words that were escaped.
    return Markup(  # noqa: S704
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
