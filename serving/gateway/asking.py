"""How a request waits for its answers: until they come, its time is up, or its caller hangs up."""

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from fastapi import Request

from data.errors import DeadlineError, EngineError, OverloadError
from serving.batching.runner import BatchRunner
from serving.gateway.limits import Refusal

Result = TypeVar("Result")
Answer = TypeVar("Answer")
_HUNG_UP: Final = 499
"""No answer reaches a caller who is gone; nginx's number for it stands in the metrics."""


async def ask_runner(
    request: Request, runner: BatchRunner[Answer], texts: Sequence[str], *, timeout_s: float
) -> list[Answer | EngineError]:
    """Have one runner answer.

    Args:
        request: whose caller is waited with.
        runner: that is asked.
        texts: that it answers.
        timeout_s: for all of them.

    Raises:
        Refusal: 429 there is no room, 503 it took too long, 499 the caller hung up.
    """
    try:
        return await unless_gone(request, runner.answer(texts, timeout_s=timeout_s))
    except OverloadError as error:
        raise _overloaded(error) from error
    except DeadlineError as error:
        raise Refusal(503, "deadline_passed", str(error), retry_after_s=5) from error


async def ask_arms(
    request: Request,
    asked: Sequence[tuple[BatchRunner[Answer], Sequence[str]]],
    *,
    timeout_s: float,
) -> list[list[Answer | EngineError]]:
    """Have several arms' runners answer at once; if one refuses, the others are called off.

    One that is late fails its own texts alone: what another arm answered is no worse for it.

    Args:
        request: whose caller is waited with.
        asked: each runner, and the texts it answers.
        timeout_s: for all of it.

    Raises:
        Refusal: 429 there is no room, 499 the caller hung up.
    """
    try:
        return await unless_gone(request, _together(asked, timeout_s))
    except OverloadError as error:
        raise _overloaded(error) from error


def refuse_if_full(runner: BatchRunner[Answer], texts: Sequence[str], *, timeout_s: float) -> None:
    """Refuse before the work that comes before asking.

    Raises:
        Refusal: 429 there is no room.
    """
    try:
        runner.refuse_if_full(texts, timeout_s)
    except OverloadError as error:
        raise _overloaded(error) from error


def _overloaded(error: OverloadError) -> Refusal:
    wait_s = max(1, math.ceil(error.retry_after_s))
    return Refusal(429, "overloaded", str(error), retry_after_s=wait_s)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives; it is cancelled once the caller hangs up.

    Args:
        request: its body has been read.
        work: may be cancelled at any point.

    Raises:
        Refusal: 499, the caller hung up; nobody sees it.
    """
    asked, gone = asyncio.ensure_future(work), asyncio.ensure_future(_hang_up(request))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Refusal(_HUNG_UP, "caller_gone", "the caller hung up before the answer was there")
        return asked.result()
    finally:
        asked.cancel()
        gone.cancel()
        await asyncio.gather(asked, gone, return_exceptions=True)


async def _together(
    asked: Sequence[tuple[BatchRunner[Answer], Sequence[str]]], timeout_s: float
) -> list[list[Answer | EngineError]]:
    if len(asked) == 1:
        ((runner, texts),) = asked
        return [await answer_or_errors(runner, texts, timeout_s)]
    try:
        async with asyncio.TaskGroup() as group:
            jobs = [
                group.create_task(answer_or_errors(runner, texts, timeout_s))
                for runner, texts in asked
            ]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [job.result() for job in jobs]


async def answer_or_errors(
    runner: BatchRunner[Answer], texts: Sequence[str], timeout_s: float
) -> list[Answer | EngineError]:
    """A runner's answers; where it is late, each text's is that error.

    Raises:
        OverloadError: there is no room.
    """
    try:
        return await runner.answer(texts, timeout_s=timeout_s)
    except DeadlineError as error:
        return [error] * len(texts)


async def _hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
