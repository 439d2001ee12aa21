"""A device that is made of sleep and real memory: the same on any machine, and however busy.

A batch sleeps a part of its predicted seconds beside the others and the rest on one of two units,
and holds as many bytes as it is predicted to need, out of a budget that a child process may share.
"""

import threading
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import psutil

from bench.corpus import draw_lengths
from data.errors import EngineMemoryError
from serving.batching.costs import CostFile, CostModel
from serving.batching.memory import MemoryReading
from serving.batching.shapes import shape_of
from serving.engines.protocol import Outputs, TokenIds
from serving.windows import Windows

MIB: Final = 2**20
BUDGET: Final = 120 * MIB
UNITS: Final = 2
BYTES: Final = (2.0 * MIB, 0.0, 16_384.0, 0.0)
SECONDS: Final = (12e-3, 0.0, 9e-5, 0.0)
HOST_SHARE: Final = 0.4


def costs(slowness: float = 1.0) -> CostModel:
    """What the device's batches cost, known exactly."""
    return CostModel(
        CostFile(
            computes_padding=True,
            bytes_of=BYTES,
            byte_margin=1.05,
            seconds_of=(SECONDS[0] * slowness, 0.0, SECONDS[2] * slowness, 0.0),
            measured=200,
        )
    )


class Budget:
    """Memory that this process's batches and a child share; a ``MemorySource``."""

    def __init__(self) -> None:
        self._own = psutil.Process()
        self._at_start = self._own.memory_info().rss
        self.child: psutil.Process | None = None

    def __call__(self) -> MemoryReading:
        """See ``MemorySource``."""
        own = self._own.memory_info().rss
        return MemoryReading(BUDGET - max(own - self._at_start, 0) - self.taken(), own)

    def taken(self) -> int:
        """Bytes of the child."""
        return 0 if self.child is None else int(self.child.memory_info().rss)


class Device:
    """An engine and its model: texts are lengths."""

    name = "sleeping device"
    batch_invariant = True
    computes_padding = True
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None
    pad_id = 0

    def __init__(self, budget: Budget, slowness: float = 1.0) -> None:
        self.engine = self
        self._budget = budget
        self._units = threading.Semaphore(UNITS)
        self._lock = threading.Lock()
        self._held = 0
        self._costs = costs(slowness)

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """Hold the predicted bytes, and sleep the predicted seconds."""
        shape = shape_of([input_ids.shape[1]] * len(input_ids))
        needed = int(self._costs.bytes_likely(shape))
        with self._lock:
            if self._held + needed + self._budget.taken() > BUDGET:
                raise EngineMemoryError(f"{needed} bytes do not fit the budget")
            self._held += needed
        held = np.empty(needed, dtype=np.uint8)
        held[::4096] = 1
        seconds = self._costs.base_seconds(shape)
        time.sleep(HOST_SHARE * seconds)
        with self._units:
            time.sleep((1 - HOST_SHARE) * seconds)
        with self._lock:
            self._held -= needed
        return {"one": np.ones(len(input_ids), dtype=np.float32)}

    def windows(self, texts: Sequence[str]) -> Windows:
        """As many tokens as the text says."""
        count = len(texts)
        return Windows(
            ids=[[1] * int(text) for text in texts],
            text_index=np.arange(count, dtype=np.int64),
            weights=np.ones(count, dtype=np.float32),
            texts=count,
        )

    def answers(self, outputs: Outputs, windows: Windows) -> list[float]:
        """Nothing to decode."""
        return list(map(float, outputs["one"]))


def draw_texts(random: np.random.Generator, count: int) -> list[str]:
    """Texts that say their own length, as reviews have them."""
    return [str(length) for length in draw_lengths(count, seed=int(random.integers(2**32)))]
