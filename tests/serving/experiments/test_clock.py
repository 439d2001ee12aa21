"""A clock that the machine's jumps do not turn back."""

import pytest

from serving.experiments.clock import SteadyClock


@pytest.fixture
def times():
    """What the machine's clock and the monotonic one say, in microseconds."""
    return {"wall": 1_000_000, "monotonic": 500}


@pytest.fixture
def clock(times):
    return SteadyClock(wall=lambda: times["wall"], monotonic=lambda: times["monotonic"])


def pass_time(times, us, *, jump=0):
    times["monotonic"] += us
    times["wall"] += us + jump


def test_it_says_what_the_machines_clock_says(clock, times):
    pass_time(times, 250)
    assert clock.now_us() == 1_000_250


def test_a_clock_that_is_set_back_lets_time_go_on(clock, times):
    pass_time(times, 100)
    before = clock.now_us()
    pass_time(times, 40, jump=-3_600_000_000)
    assert clock.now_us() == before + 40
    pass_time(times, 60)
    assert clock.now_us() == before + 100


def test_it_is_the_machines_again_once_that_has_caught_up(clock, times):
    pass_time(times, 10, jump=-50)
    assert clock.now_us() == 1_000_010
    pass_time(times, 10, jump=+80)
    assert clock.now_us() == times["wall"]


def test_a_clock_that_stands_still_gives_no_time_twice(clock):
    seen = [clock.now_us() for _ in range(100)]
    assert sorted(set(seen)) == seen
