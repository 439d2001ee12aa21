import asyncio
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from data.errors import EngineMemoryError
from serving.batching.admission import Admission
from serving.batching.gradient import GradientLimit
from serving.batching.memory import MemoryReading
from serving.batching.settings import AdmissionSettings

MIB = 2**20
HOLDER = """
import sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
print("held", flush=True)
sys.stdin.read()
"""


class Memory:
    """As much as it is told, in MiB."""

    def __init__(self, free, own=1000):
        self.free = free
        self.own = own

    def __call__(self):
        return MemoryReading(free=int(self.free * MIB), own=int(self.own * MIB))


def admission_of(memory, **changes):
    given = {"reserve_bytes": 0, "read_interval_s": 0.01, "first_batches": 16}
    return Admission(memory, settings=AdmissionSettings(**(given | changes)))


async def is_pending(task):
    await asyncio.sleep(0.05)
    return not task.done()


def test_batches_in_flight_stay_within_what_is_free():
    async def body():
        admission = admission_of(Memory(100), reserve_bytes=10 * MIB)
        first = await admission.acquire(40 * MIB)
        second = await admission.acquire(50 * MIB)
        third = asyncio.create_task(admission.acquire(1 * MIB))
        assert await is_pending(third)
        admission.release(first)
        admission.release(first)  # twice is once
        assert (await third).waited
        assert not second.waited
        state = admission.state()
        assert (state.in_flight, state.in_flight_bytes) == (2, 51 * MIB)

    asyncio.run(body())


def test_what_comes_first_goes_first_however_large():
    async def body():
        admission = admission_of(Memory(100))
        running = [await admission.acquire(30 * MIB) for _ in range(3)]
        large = asyncio.create_task(admission.acquire(90 * MIB))
        await asyncio.sleep(0)
        small = asyncio.create_task(admission.acquire(1 * MIB))
        assert await is_pending(large)
        assert not small.done()  # it would fit, but must not starve the large one
        for permit in running:
            admission.release(permit)
        admitted = await large
        assert not await is_pending(small)
        admission.release(admitted)

    asyncio.run(body())


def test_memory_that_own_batches_took_is_not_counted_twice():
    async def body():
        memory = Memory(100, own=1000)
        admission = admission_of(memory)
        await admission.acquire(40 * MIB)
        memory.free, memory.own = 62, 1038  # the batch took 38
        await asyncio.sleep(0.03)
        assert admission.limit_bytes() == 100 * MIB
        await admission.acquire(60 * MIB)
        # A model of 500 is loaded beside: it grew this process, but is no batch.
        memory.free, memory.own = -450, 1550
        await asyncio.sleep(0.03)
        assert admission.limit_bytes() == -350 * MIB

    asyncio.run(body())


def test_what_the_allocator_keeps_after_a_batch_is_there_for_the_next():
    async def body():
        memory = Memory(1000, own=2000)
        admission = admission_of(memory)

        async def limit_with(free, own):
            memory.free, memory.own = free, own
            await asyncio.sleep(0.03)
            return admission.limit_bytes() / MIB

        permit = await admission.acquire(600 * MIB)
        assert await limit_with(400, 2600) == 1000
        admission.release(permit)
        assert await limit_with(400, 2600) == 1000  # it keeps all
        permit = await admission.acquire(900 * MIB)
        assert await limit_with(100, 2900) == 1000
        admission.release(permit)
        assert await limit_with(800, 2200) == 1000  # 200 are kept
        # A model of 300 is loaded while no batch runs, and another of 100 while one does.
        assert await limit_with(500, 2500) == 700
        permit = await admission.acquire(50 * MIB)
        assert await limit_with(400, 2600) == 600
        admission.model_loaded()
        admission.release(permit)
        assert await limit_with(400, 2600) == 400  # which of it is kept is not known: none
        permit = await admission.acquire(300 * MIB)
        assert await limit_with(100, 2900) == 400
        admission.release(permit)
        assert await limit_with(300, 2700) == 400

    asyncio.run(body())


def test_a_batch_larger_than_the_limit_goes_alone_into_the_reserve():
    async def body():
        admission = admission_of(Memory(100), reserve_bytes=50 * MIB)
        small = await admission.acquire(10 * MIB)
        large = asyncio.create_task(admission.acquire(80 * MIB))
        assert await is_pending(large)
        admission.release(small)
        await asyncio.wait_for(large, 10)

    asyncio.run(body())


def test_what_never_fits_is_refused_and_those_behind_it_are_not_stuck():
    async def body():
        admission = admission_of(Memory(100), patience_s=0.2)
        huge = asyncio.create_task(admission.acquire(300 * MIB))
        await asyncio.sleep(0)
        behind = asyncio.create_task(admission.acquire(10 * MIB))
        with pytest.raises(EngineMemoryError, match="needs 300 MiB and 100 MiB are free"):
            await asyncio.wait_for(huge, 10)
        await asyncio.wait_for(behind, 10)
        assert admission.state().in_flight == 1

    asyncio.run(body())


def test_who_gives_up_waiting_leaves_nothing_behind():
    async def body():
        admission = admission_of(Memory(100))
        first = await admission.acquire(90 * MIB)
        waiting = asyncio.create_task(admission.acquire(50 * MIB))
        small = asyncio.create_task(admission.acquire(5 * MIB))
        assert await is_pending(waiting)
        waiting.cancel()
        await asyncio.wait_for(small, 10)  # the one before it is gone
        granted = asyncio.create_task(admission.acquire(50 * MIB))
        assert await is_pending(granted)
        admission.release(first)
        granted.cancel()  # granted and cancelled in one turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await granted
        state = admission.state()
        assert (state.in_flight, state.in_flight_bytes, state.waiting) == (1, 5 * MIB, 0)

    asyncio.run(body())


def test_no_room_is_to_be_hoped_for_when_nothing_in_flight_ends():
    async def body():
        admission = admission_of(Memory(100), stalled_s=0.1)
        hangs = await admission.acquire(90 * MIB)
        await asyncio.sleep(0.15)
        assert admission.has_room(50 * MIB)  # slow, but nobody waits
        waiting = asyncio.create_task(admission.acquire(50 * MIB))
        await asyncio.sleep(0)
        assert admission.has_room(50 * MIB)
        await asyncio.sleep(0.15)
        assert not admission.has_room(50 * MIB)
        admission.release(hangs)
        await waiting
        assert admission.has_room(50 * MIB)

    asyncio.run(body())


@contextmanager
def process_holding(size):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            process.stdout.readline()
            yield process
        finally:
            process.stdin.close()
            process.wait(20)


def test_it_shrinks_when_another_process_takes_memory_and_grows_back():
    """A child really allocates; the machine is made small by a budget that both live within."""
    children = []

    def read():
        taken = sum(psutil.Process(child.pid).memory_info().rss for child in children)
        return MemoryReading(free=400 * MIB - taken, own=0)

    async def body():
        admission = admission_of(read)
        held = [await admission.acquire(100 * MIB) for _ in range(4)]
        with process_holding(200 * MIB) as child:
            children.append(child)
            for permit in held:
                admission.release(permit)
            await asyncio.sleep(0.05)
            assert admission.limit_bytes() < 200 * MIB
            await admission.acquire(100 * MIB)
            second = asyncio.create_task(admission.acquire(100 * MIB))
            assert await is_pending(second)
            children.clear()
        await asyncio.wait_for(second, 10)  # noticed without anyone telling
        assert admission.limit_bytes() == 400 * MIB

    asyncio.run(body())


def test_the_gradient_grows_while_batches_do_not_slow_each_other_and_falls_when_they_do():
    limit = GradientLimit(first=2, least=1, most=16, tolerance=1.5)
    for _ in range(300):
        limit.observe(1.0, in_flight=int(limit.limit))
    assert limit.limit == 16
    for _ in range(100):
        limit.observe(4.0, in_flight=int(limit.limit))
    assert limit.limit < 4
    for _ in range(300):
        limit.observe(1.0, in_flight=int(limit.limit))
    assert limit.limit > 12


def test_two_units_are_given_little_more_than_two_batches():
    """A device that runs two at once: with more in flight each takes longer in proportion."""
    limit = GradientLimit(first=2, least=1, most=16, tolerance=1.5)
    for _ in range(150):
        in_flight = int(limit.limit)
        limit.observe(max(1.0, in_flight / 2), in_flight=in_flight)
    assert 2 <= limit.limit <= 5


def test_so_few_in_flight_say_nothing():
    limit = GradientLimit(first=8, least=1, most=16, tolerance=1.5)
    for _ in range(100):
        limit.observe(1.0, in_flight=1)
    assert limit.limit == 8
