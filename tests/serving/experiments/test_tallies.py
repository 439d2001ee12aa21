"""Events become sums per unit, however they are parcelled."""

import numpy as np
import pytest

from serving.experiments.tallies import EDGES, Slots, Tally


def test_units_are_numbered_per_arm() -> None:
    slots = Slots(["float", "int8"])
    first = slots.number("float", "0a" * 32)
    assert slots.number("float", "0a" * 32) == first
    assert slots.number("int8", "0a" * 32) != first
    assert slots.units() == {"float": 1, "int8": 1}


@pytest.mark.parametrize("parcel", [1, 13, 4_000])
def test_sums_do_not_depend_on_how_events_are_parcelled(parcel: int) -> None:
    random = np.random.default_rng(4)
    unit, values = random.integers(0, 1_500, 4_000), random.beta(2, 3, 4_000)
    measured = (random.random(4_000) < 0.8).astype(float)
    slots = Slots(["float", "int8"])
    tally = Tally(slots, of_means=False, binned=True, bounded=True)
    for start in range(0, 4_000, parcel):
        part = slice(start, start + parcel)
        numbers = [slots.number(("float", "int8")[u % 2], f"{u:064x}") for u in unit[part].tolist()]
        tally.add(np.asarray(numbers), values[part] * measured[part], measured[part])

    for arm in (0, 1):
        mine = (unit % 2 == arm) & (measured > 0)
        seen, first = np.unique(unit[mine], return_index=True)
        assert tally.sums.ratio(arm) == pytest.approx(values[mine].mean(), rel=1e-12)
        assert tally.sums.units(arm) == tally.first(arm).units == len(seen)
        assert tally.first(arm).total == pytest.approx(values[mine][first].sum(), rel=1e-12)
        counted = np.histogram(values[mine][first], EDGES)[0]
        np.testing.assert_array_equal(tally.bins[arm], counted)


def test_what_is_fed_back_is_the_mean_of_units_means() -> None:
    slots = Slots(["float", "int8"])
    tally = Tally(slots, of_means=True, binned=False, bounded=True)
    once, often = (slots.number("int8", unit * 32) for unit in ("0a", "0b"))
    tally.add(np.asarray([once, often]), np.asarray([1.0, 0.0]), np.ones(2))
    tally.add(np.asarray([often] * 3), np.asarray([0.0, 0.0, 1.0]), np.ones(3))
    assert tally.sums.ratio(1) == pytest.approx((1.0 + 0.25) / 2)
    assert tally.sums.units(1) == 2
    tally.correct(np.asarray([once]), np.asarray([-1.0]))
    assert tally.sums.ratio(1) == pytest.approx(0.125)
    assert tally.first(0) is None


def test_a_correction_changes_the_ratio_and_no_first_value() -> None:
    slots = Slots(["float", "int8"])
    tally = Tally(slots, of_means=False, binned=False, bounded=True)
    slot = np.asarray([slots.number("float", "0a" * 32)])
    tally.add(slot, np.ones(1), np.ones(1))
    tally.correct(slot, -np.ones(1))
    assert tally.sums.ratio(0) == 0.0
    assert tally.first(0).total == 1.0


def test_bins_hold_every_number() -> None:
    assert (np.diff(EDGES) > 0).all()
    slots = Slots(["float", "int8"])
    tally = Tally(slots, of_means=False, binned=True, bounded=False)
    values = np.asarray([-1e12, -3.5, 0.0, 1e-12, 42.0, 1e12])
    numbers = np.asarray([slots.number("int8", f"{n:064x}") for n in range(len(values))])
    tally.add(numbers, values, np.ones(len(values)))
    assert tally.bins[1].sum() == len(values)
    place = int(np.flatnonzero(tally.bins[1])[-2])
    assert EDGES[place] <= 42.0 < EDGES[place + 1]
    assert EDGES[place + 1] / EDGES[place] == pytest.approx(1.01)
