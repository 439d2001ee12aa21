"""A model that answers a text with its words' numbers, and fails, waits or ends on command."""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from serving.batching.memory import MemoryReading
from serving.engines.protocol import Outputs, TokenIds
from serving.windows import Windows, lay_windows

GIB = 2**30


class FakeEngine:
    """Answers each row with the sum of its ids; `on_run` may raise, sleep or return outputs."""

    name = "fake"
    batch_invariant = True
    computes_padding = True

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.real_tokens = 0
        self.on_run: Callable[[TokenIds], Outputs | None] = lambda ids: None

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        self.shapes.append(input_ids.shape)
        self.real_tokens += int(attention_mask.sum())
        own = self.on_run(input_ids)
        sums = (input_ids * attention_mask).sum(axis=1).astype(np.float32)
        return {"sum": sums[:, None]} if own is None else own


class FakeModel:
    """A text is numbers between blanks, one token each; windows of ten that share two."""

    pad_id = 0

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.on_windows: Callable[[Sequence[str]], None] = lambda texts: None

    def windows(self, texts: Sequence[str]) -> Windows:
        self.on_windows(texts)
        ids = [[int(word) for word in text.split() if word.isdigit()] for text in texts]
        return lay_windows(ids, cls=1, sep=2, max_tokens=512, overlap_tokens=2)

    def answers(self, outputs: Outputs, windows: Windows) -> list[float]:
        merged = np.zeros(windows.texts)
        np.add.at(merged, windows.text_index, outputs["sum"][:, 0] * windows.weights)
        return merged.tolist()


def _always(free: int = 8 * GIB) -> MemoryReading:
    return MemoryReading(free=free, own=GIB)


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


@pytest.fixture
def plenty() -> Callable[[], MemoryReading]:
    return _always


class Gate:
    """Holds every batch until it is opened; says when one has come."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.open = threading.Event()

    def __call__(self, ids: TokenIds) -> None:
        self.come.set()
        assert self.open.wait(30)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def wait_until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
