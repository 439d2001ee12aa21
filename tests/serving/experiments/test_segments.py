import numpy as np
import pytest

from serving.experiments.findings import Settings
from serving.experiments.inference.intervals import anytime_difference, mean_arms
from serving.experiments.inference.multiplicity import holm
from serving.experiments.metric_arrays import MetricValues, PhaseUnits
from serving.experiments.segments import segment_counts, segment_rows, segments_of

SETTINGS = Settings(alpha=0.05, tuned_for_units=1_000, burn_in=100)
# Monday 2 November 2026, 00:30 in Seoul; in Greenwich it is Sunday still.
MONDAY_US = 1_793_547_000_000_000
DAY_US = 86_400_000_000
NAMES = ["float", "int8"]


@pytest.fixture
def units() -> PhaseUnits:
    random = np.random.default_rng(6)
    return PhaseUnits(
        arm=random.integers(0, 2, 1_000),
        first_us=np.full(1_000, MONDAY_US) + (np.arange(1_000) % 2) * DAY_US,
        asks=np.where(np.arange(1_000) % 5 == 0, 3, 1),
        failures=np.zeros(1_000, dtype=np.int64),
        crossed=0,
        strangers=(),
        versions={},
    )


def named(units: PhaseUnits):
    earlier = (np.arange(1_000) % 4 == 0).astype(np.int64)
    return {f"{each.dimension}: {each.name}": each for each in segments_of(units, earlier)}


def test_units_are_told_apart_by_their_past_their_first_day_in_seoul_and_their_activity(units):
    found = named(units)
    assert len(found) == 11
    counts = {name: int(each.units.sum()) for name, each in found.items() if each.units.any()}
    assert counts == {
        "visit: new": 750,
        "visit: returning": 250,
        "weekday: monday": 500,
        "weekday: tuesday": 500,
        "activity: one_request": 800,
        "activity: several_requests": 200,
    }


def test_ratios_are_checked_in_every_segment_that_no_arm_can_change(units):
    found = segment_counts(list(named(units).values()), units, NAMES)
    assert len(found) == 9  # also of days without units: the correction is for all that are named
    assert not any(name.startswith("activity") for name in found)
    assert sum(found["visit: new"].values()) == 750
    assert found["weekday: friday"] == {"float": 0, "int8": 0}


def test_each_segment_has_its_share_of_the_level_and_p_values_are_corrected(units):
    random = np.random.default_rng(7)
    right = random.random(1_000) < 0.5 + 0.3 * units.arm
    values = MetricValues(right.astype(np.float64), np.ones(1_000))
    segments = named(units)
    rows = segment_rows("reward", list(segments.values()), units, values, NAMES, SETTINGS)
    assert len(rows) == 6
    plain = {}
    for row in rows:
        chosen = segments[f"{row.dimension}: {row.segment}"].units
        on = units.arm[chosen] == 1
        assert row.units == (int((~on).sum()), int(on.sum()))
        assert row.after_the_fact == (row.dimension == "activity")
        wanted = anytime_difference(
            mean_arms(on, values.values[chosen]), alpha=0.05 / 6, tuned_for_units=1_000
        )
        if min(row.units) < 100:
            assert row.low is None
            assert row.adjusted_p is None
            continue
        assert (row.difference, row.low) == pytest.approx((wanted.estimate, wanted.low))
        plain[f"{row.dimension}: {row.segment}"] = wanted.p
    assert len(plain) >= 4
    corrected = holm(plain)
    found = {f"{row.dimension}: {row.segment}": row.adjusted_p for row in rows}
    assert {name: found[name] for name in corrected} == pytest.approx(corrected)


def test_segments_without_an_outcome_are_left_out(units):
    none = MetricValues(np.zeros(1_000), np.zeros(1_000))
    segments = list(named(units).values())
    assert segment_rows("reward", segments, units, none, NAMES, SETTINGS) == ()
