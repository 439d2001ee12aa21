"""Parts of the units, and the primary metric in each: did the arm help everybody alike?

In: units with the primary metric. Out: one row per segment and challenger, whose intervals hold all
together, and the counts that the sample ratio is read from. A segment by what a unit did before it
met an arm may be compared; one by what it did since may differ because the arm moved units into it,
and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from serving.experiments.inference.levels import Flags
from serving.experiments.inference.multiplicity import holm
from serving.experiments.metric_comparison import Settings, compare_sums, value_of
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.metric_rows import Counts, MetricValues, PhaseUnits
from serving.experiments.report import SegmentRow

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_HOUR_US: Final = 3_600_000_000
_KOREA: Final = 9 * _HOUR_US
"""The reviews are Korean: a weekday is one in Seoul, which has no summer time."""
_THURSDAY: Final = 3
"""1970 began on one."""


@dataclass(frozen=True)
class Segment:
    """Some of the units: (n,) True where a unit is in it."""

    dimension: str
    name: str
    units: Flags
    after_the_fact: bool = False


def segments_of(units: PhaseUnits, earlier_asks: Counts) -> list[Segment]:
    """Every segment that the store knows of, also those without units yet."""
    returning = earlier_asks > 0
    day = (units.first_us + _KOREA) // (24 * _HOUR_US)
    weekday = (day + _THURSDAY) % len(WEEKDAYS)
    several = units.asks > 1
    return [
        Segment("visit", "new", ~returning),
        Segment("visit", "returning", returning),
        *(Segment("weekday", name, weekday == place) for place, name in enumerate(WEEKDAYS)),
        Segment("activity", "one_request", ~several, after_the_fact=True),
        Segment("activity", "several_requests", several, after_the_fact=True),
    ]


def segment_counts(
    segments: Sequence[Segment], units: PhaseUnits, names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Segment → arm → units, of the segments that no arm can move a unit into."""
    return {
        f"{segment.dimension}: {segment.name}": {
            name: int((segment.units & (units.arm == place)).sum())
            for place, name in enumerate(names)
        }
        for segment in segments
        if not segment.after_the_fact
    }


def segment_rows(
    metric: str,
    segments: Sequence[Segment],
    units: PhaseUnits,
    values: MetricValues,
    names: Sequence[str],
    settings: Settings,
) -> tuple[SegmentRow, ...]:
    """The primary metric of every segment that has units with an outcome.

    Args:
        metric: its name.
        segments: of the units.
        units: which arm they met.
        values: of the metric.
        names: of the arms, the control first.
        settings: the level of all intervals together, and when to begin.
    """
    shown = [each for each in segments if (each.units & values.known).any()]
    level = settings.alpha / max(len(shown) * (len(names) - 1), 1)
    each_has = Settings(level, settings.tuned_for_units, settings.burn_in, exact=False)
    rows, p_values = [], {}
    for segment in shown:
        for place, name in enumerate(names[1:], start=1):
            sides = [segment.units & (units.arm == arm) for arm in (0, place)]
            both = sides[0] | sides[1]
            found = compare_sums(
                units.arm[both] == place,
                values.of(both),
                None,
                each_has,
                as_ratio=metric in FROM_ANSWERS,
                coins=False,
            )
            anytime = found.method == "anytime"
            if anytime and found.p is not None:
                p_values[f"{segment.dimension}/{segment.name}/{name}"] = found.p
            rows.append(
                SegmentRow(
                    dimension=segment.dimension,
                    segment=segment.name,
                    arm=name,
                    after_the_fact=segment.after_the_fact,
                    units=tuple(int((side & values.known).sum()) for side in sides),
                    control_value=value_of(metric, values, sides[0]),
                    value=value_of(metric, values, sides[1]),
                    difference=found.difference,
                    low=found.low if anytime else None,
                    high=found.high if anytime else None,
                )
            )
    adjusted = holm(p_values)
    return tuple(
        row.model_copy(
            update={"adjusted_p": adjusted.get(f"{row.dimension}/{row.segment}/{row.arm}")}
        )
        for row in rows
    )
