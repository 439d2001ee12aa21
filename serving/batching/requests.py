"""One caller's texts on their way: split into windows, gathered again, answered in order."""

import asyncio
import itertools
import math
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.errors import EngineError
from serving.engines.protocol import Outputs
from serving.windows import Windows

Answer = TypeVar("Answer")


@dataclass(eq=False, slots=True)
class Request(Generic[Answer]):
    """The texts of one call.

    Attributes:
        texts: as given.
        done: resolved when every text has its answer or its error.
        deadline: of the monotonic clock; what would be later is not computed.
        answers: by the texts' places.
        turn: its place in the fair queue (serving/batching/waiting.py).
        closed: answered, cancelled or late: nothing of it is worth computing.
    """

    texts: list[str]
    done: "asyncio.Future[None]"
    deadline: float = math.inf
    answers: dict[int, Answer | EngineError] = field(default_factory=dict)
    turn: float = 0.0
    closed: bool = False

    @property
    def left(self) -> int:
        """Texts without an answer."""
        return len(self.texts) - len(self.answers)

    def settle(self, index: int, answer: Answer | EngineError) -> None:
        """Answer one text; only the first answer counts."""
        if self.closed or index in self.answers:
            return
        self.answers[index] = answer
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def in_order(self) -> list[Answer | EngineError]:
        """All answers; the request is done."""
        return [self.answers[index] for index in range(len(self.texts))]


@dataclass(eq=False, slots=True)
class Text(Generic[Answer]):
    """One text of a request.

    Attributes:
        request: it belongs to.
        index: its place there.
        weights: share of each window, (windows,).
        outputs: of each window, each (…) without the batch's axis.
        left: windows without outputs.
        failed: answered with an error already; its other windows are worth nothing.
    """

    request: Request[Answer]
    index: int
    weights: NDArray[np.float32]
    outputs: list[Outputs | None]
    left: int
    failed: bool = False

    def fail(self, error: EngineError) -> None:
        """Answer with an error."""
        self.failed = True
        self.request.settle(self.index, error)


@dataclass(eq=False, slots=True)
class Row(Generic[Answer]):
    """One window of a text.

    Attributes:
        text: it belongs to.
        window: its place there.
        ids: its tokens.
        arrived: of the monotonic clock.
        start: its turn in the fair queue.
        number: breaks ties, in the order of arrival.
        attempts: times it failed in a batch of its own.
    """

    text: Text[Answer]
    window: int
    ids: list[int]
    arrived: float
    start: float = 0.0
    number: int = 0
    attempts: int = 0

    @property
    def dropped(self) -> bool:
        """Nobody waits for it any more."""
        return self.text.failed or self.text.request.closed


def rows_of(
    request: Request[Answer], first: int, windows: Windows, now: float
) -> list[Row[Answer]]:
    """Rows of some texts of a request.

    Args:
        request: whose texts were read.
        first: index of the first of them.
        windows: as the model laid them.
        now: of the monotonic clock.
    """
    texts: list[Text[Answer]] = []
    start = 0
    for offset, count in enumerate(windows.per_text.tolist()):
        weights = windows.weights[start : start + count]
        texts.append(Text(request, first + offset, weights, [None] * count, count))
        start += count
    laid = iter(windows.ids)
    return [
        Row(text, window, ids, now)
        for text in texts
        for window, ids in enumerate(itertools.islice(laid, len(text.outputs)))
    ]


def own_error(part: str, error: BaseException) -> EngineError:
    """What one text is answered with when a part of the way failed on it."""
    if isinstance(error, EngineError):
        return error
    own = EngineError(
        f"the {part} failed on this text: {type(error).__name__}: {error}; report it with the text"
    )
    own.__cause__ = error
    return own
