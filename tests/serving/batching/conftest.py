"""A model whose answers are plain sums, whose parts fail or wait on command, and a runner of it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from serving.batching.admission import Admission
from serving.batching.costs import CostFile, CostModel
from serving.batching.memory import MemoryReading
from serving.batching.observer import SilentObserver
from serving.batching.runner import BatchRunner
from serving.batching.settings import BatchSettings
from serving.windows import Windows, lay_windows

GIB = 2**30


class FakeModel:
    """A text is numbers, one token each, and its answer their windows' weighted sum.

    It is its own engine. `on_run` and `on_windows` see what comes and may raise, wait or answer.
    """

    pad_id = 0
    name = "fake"
    batch_invariant = True
    computes_padding = True
    length_buckets = ()
    max_rows = None

    def __init__(self) -> None:
        self.engine = self
        self.shapes: list[tuple[int, int]] = []
        self.tokens = 0
        self.on_run: Callable[[Any], Any] = lambda ids: None
        self.on_windows: Callable[[Sequence[str]], None] = lambda texts: None

    def run(self, input_ids: Any, attention_mask: Any) -> Any:
        self.shapes.append(input_ids.shape)
        self.tokens += int(attention_mask.sum())
        own = self.on_run(input_ids)
        return {"sum": input_ids.sum(axis=1, dtype=np.float32)} if own is None else own

    def windows(self, texts: Sequence[str]) -> Windows:
        self.on_windows(texts)
        ids = [[int(word) for word in text.split() if word.isdigit()] for text in texts]
        return lay_windows(ids, cls=1, sep=2, max_tokens=64, overlap_tokens=2)

    def answers(self, outputs: Any, windows: Windows) -> list[float]:
        merged = np.zeros(windows.texts)
        np.add.at(merged, windows.text_index, outputs["sum"] * windows.weights)
        return merged.tolist()


class Counting(SilentObserver):
    """Keeps what it is told, by name."""

    def __init__(self) -> None:
        self.told: dict[str, list[Any]] = {}
        for name in ("batch_done", "rejected", "out_of_memory", "retried", "worker_died"):
            setattr(self, name, lambda name=name, **what: self._keep(name, what))

    def _keep(self, name: str, what: dict[str, Any]) -> None:
        self.told.setdefault(name, []).append(SimpleNamespace(**what))

    def of(self, name: str) -> list[Any]:
        return self.told.get(name, [])


class Gate:
    """Holds every batch until it is opened, and says when one has come."""

    def __init__(self) -> None:
        self.come = threading.Event()
        self.open = threading.Event()

    def __call__(self, ids: Any) -> None:
        self.come.set()
        assert self.open.wait(30)


class Crowd:
    """Many texts with their answers, and one among them that the test makes fail."""

    def __init__(self) -> None:
        self.poison = 666
        self.texts = [str(number) for number in range(100, 164)]
        self.sums = [3.0 + number for number in range(100, 164)]

    def poisoned(self) -> list[str]:
        return [*self.texts[:20], str(self.poison), *self.texts[20:]]

    def assert_only_the_poison_failed(self, answers: list[Any]) -> None:
        assert isinstance(answers[20], EngineError)
        assert [*answers[:20], *answers[21:]] == self.sums


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def plenty() -> Callable[[], MemoryReading]:
    return lambda: MemoryReading(free=8 * GIB, own=GIB)


@pytest.fixture
def quick_costs() -> Callable[[], CostModel]:
    """A model of a machine on which a batch is a millisecond and a token a microsecond."""
    return lambda: CostModel(
        CostFile(
            computes_padding=True,
            bytes_of=(1000.0, 0.0, 1000.0, 0.0),
            byte_margin=1.0,
            seconds_of=(1e-3, 0.0, 1e-6, 0.0),
            measured=100,
        )
    )


RunningRunner = Callable[..., Any]


@pytest.fixture
def running(
    fake: FakeModel,
    plenty: Callable[[], MemoryReading],
    counting: Counting,
    quick_costs: Callable[[], CostModel],
) -> RunningRunner:
    """A started runner of the fake model, or of another; settings by name."""

    @asynccontextmanager
    async def start(
        model: Any = None, admission: Admission | None = None, **settings: Any
    ) -> AsyncIterator[BatchRunner[Any]]:
        runner = BatchRunner(
            fake if model is None else model,
            name="test",
            admission=admission or Admission(plenty),
            costs=quick_costs(),
            settings=BatchSettings(**settings),
            observer=counting,
        )
        await runner.start()
        try:
            yield runner
        finally:
            await runner.drain(20)

    return start


@pytest.fixture
def becomes() -> Callable[..., Any]:
    """Waits, in the event loop, until something is true."""

    async def wait(true: Callable[[], bool], timeout_s: float = 20.0) -> float:
        started = time.monotonic()
        while not true():
            assert time.monotonic() - started < timeout_s, "it never came true"
            await asyncio.sleep(0.01)
        return time.monotonic() - started

    return wait
