"""A thread that is awaited: one call after the other, and another thread where it is gone."""

import asyncio
import ctypes
import sys
import threading

import pytest

from data.errors import EngineError
from serving.batching.threads import Thread


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which threads there are")
def test_a_thread_that_ended_in_c_is_replaced():
    async def body():
        thread = Thread("test")
        assert await thread.call(abs, -1) == 1
        ends = asyncio.create_task(thread.call(ctypes.CDLL(None).pthread_exit, None))
        behind = asyncio.create_task(thread.call(abs, -3))
        with pytest.raises(EngineError, match="'test' ended in the middle of a call"):
            await asyncio.wait_for(ends, 5)
        assert await asyncio.wait_for(behind, 5) == 3
        assert await asyncio.wait_for(thread.call(abs, -2), 5) == 2
        thread.stop()

    asyncio.run(body())


def test_what_nobody_awaits_any_more_is_not_begun():
    async def body():
        thread, gate, begun = Thread("test"), threading.Event(), []
        waiting = asyncio.create_task(thread.call(gate.wait, 5))
        given_up = asyncio.create_task(thread.call(begun.append, "given up"))
        await asyncio.sleep(0)
        given_up.cancel()
        gate.set()
        await waiting
        await thread.call(begun.append, "awaited")
        thread.stop()
        assert begun == ["awaited"]

    asyncio.run(body())


def test_being_told_to_end_is_an_error_and_the_thread_goes_on():
    async def body():
        thread = Thread("test")
        with pytest.raises(EngineError, match="told to end: SystemExit"):
            await thread.call(sys.exit)
        assert await thread.call(abs, -1) == 1
        thread.stop()

    asyncio.run(body())
