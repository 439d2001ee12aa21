"""One caller's texts on their way: split into windows, gathered again, answered in order."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

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
        answers: filled in the texts' order.
        left: texts without an answer.
        turn: its place in the fair queue (serving/batching/waiting.py).
        closed: answered, cancelled or late: nothing of it is worth computing.
    """

    texts: list[str]
    done: "asyncio.Future[None]"
    answers: list[Answer | EngineError | None] = field(default_factory=list)
    left: int = 0
    turn: float = 0.0
    closed: bool = False

    def __post_init__(self) -> None:
        self.answers = [None] * len(self.texts)
        self.left = len(self.texts)

    def settle(self, index: int, answer: "Answer | EngineError") -> None:
        """Answer one text; only the first answer counts."""
        if self.answers[index] is not None or self.closed:
            return
        self.answers[index] = answer
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)


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
    weights: "np.typing.NDArray[np.float32]"
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
        arrived: of the loop's clock.
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
        now: of the loop's clock.
    """
    counts = windows.per_text
    texts: list[Text[Answer]] = []
    start = 0
    for offset, count in enumerate(counts.tolist()):
        weights = windows.weights[start : start + count]
        texts.append(Text(request, first + offset, weights, [None] * count, count))
        start += count
    laid = iter(windows.ids)
    return [
        Row(text, window, ids, now)
        for text in texts
        for window, ids in enumerate(itertools.islice(laid, len(text.outputs)))
    ]


def gathered(texts: list[Text[Answer]]) -> tuple[Outputs, Windows]:
    """What ``TextModel.answers`` takes, of texts whose windows are all there."""
    parts = [part for text in texts for part in text.outputs if part is not None]
    outputs = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    counts = [len(text.outputs) for text in texts]
    return outputs, Windows(
        ids=[[]] * len(parts),
        text_index=np.repeat(np.arange(len(texts), dtype=np.int64), counts),
        weights=np.concatenate([text.weights for text in texts]),
        texts=len(texts),
    )
