"""Values are kept for ten times as long as they took, and at least two seconds."""

import pytest

from serving.gateway.kept import Kept


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_computed_again_once_its_time_is_up() -> None:
    clock = Clock()
    kept: Kept[float] = Kept(clock=clock)

    def takes_a_second() -> float:
        clock.now += 1.0
        return clock.now

    first = kept.get("맛집", takes_a_second)
    clock.now += 9.9
    assert kept.get("맛집", takes_a_second) == first
    assert kept.get("다른 집", takes_a_second) != first
    clock.now += 0.2
    assert kept.get("맛집", takes_a_second) != first


def test_what_costs_nothing_is_kept_for_two_seconds() -> None:
    clock = Clock()
    kept: Kept[int] = Kept(clock=clock)
    values = iter(range(5))
    assert kept.get("a", lambda: next(values)) == 0
    clock.now += 1.9
    assert kept.get("a", lambda: next(values)) == 0
    clock.now += 0.2
    assert kept.get("a", lambda: next(values)) == 1


def test_an_error_is_not_kept() -> None:
    kept: Kept[int] = Kept()

    def fails() -> int:
        raise RuntimeError("the store is away")

    with pytest.raises(RuntimeError):
        kept.get("a", fails)
    assert kept.get("a", lambda: 3) == 3
