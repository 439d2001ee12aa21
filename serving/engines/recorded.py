"""What one thread keeps on a GPU: a stream of its own, and batches' launches recorded by shape.

A base-sized encoder is about 150 kernels, and starting them takes a millisecond or so from Python:
longer than the GPU needs for a batch of a thousand tokens. A CUDA graph starts all of them at once,
but for one shape only, so shapes are rounded up to few.
"""

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from serving.engines.half_encoder import HalfEncoder
from serving.engines.packed_batch import BatchShape, pack, shape_of
from serving.engines.protocol import Outputs, TokenIds
from serving.engines.pytorch import out_of_memory

MOST_RECORDED_TOKENS: Final = 8_192
"""A larger batch keeps the GPU busy for longer than its launches take."""
MOST_RECORDINGS: Final = 64
STALE_RUNS: Final = 1_000
"""One that was not used for so many batches gives way to another; none does before."""
_FEWEST_SEEN: Final = 2
_SHORT_OF_MEMORY_S: Final = 60.0
Run = Callable[[], dict[str, Tensor]]
log = logging.getLogger(__name__)
# Recording empties the allocator's cache, which no other recording survives.
RECORDING: Final = threading.Lock()


class Recording(NamedTuple):
    """A batch's shape, ready to be run again.

    Attributes:
        packed: where its input goes.
        replay: computes the outputs from it.
        outputs: where they then lie.
    """

    packed: Tensor
    replay: Callable[[], None]
    outputs: dict[str, Tensor]


Record = Callable[[Run], tuple[Callable[[], None], dict[str, Tensor]]]
"""Runs something once, and returns what runs it again and where the outputs then lie."""


def cuda_graphs() -> Record:
    """Records on the current stream; all recordings share one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def record(run: Run) -> tuple[Callable[[], None], dict[str, Tensor]]:
        run()  # what libraries load and choose once is no part of a graph
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        with (
            RECORDING,
            torch.cuda.graph(
                graph,
                pool=pool,
                stream=torch.cuda.current_stream(),
                capture_error_mode="thread_local",  # other threads go on meanwhile
            ),
        ):
            outputs = run()
        return graph.replay, outputs

    return record


class Lane:
    """Runs one thread's batches; not safe for another."""

    def __init__(self, encoder: HalfEncoder, device: torch.device, record: Record | None):
        """Open a stream.

        Args:
            encoder: shared by all lanes.
            device: of the encoder.
            record: None where nothing can be recorded.
        """
        self._encoder, self._device, self._record = encoder, device, record
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._recordings: OrderedDict[BatchShape, Recording] = OrderedDict()
        self._seen: Counter[BatchShape] = Counter()
        self._used: dict[BatchShape, int] = {}
        self._runs = 0
        self._not_before = 0.0

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """Answer a batch; the GPU is done with it when this returns."""
        exact = shape_of(attention_mask)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            shape = self._recordable(exact)
            packed = torch.from_numpy(pack(input_ids, attention_mask, shape or exact))
            recording = self._recording(packed, shape) if shape is not None else None
            if recording is None:
                outputs = self._encoder(packed.to(self._device), shape or exact)
            else:
                recording.packed.copy_(packed)
                recording.replay()
                outputs = recording.outputs
            # Bringing an output to the host waits for the stream.
            return {
                name: values[: exact.windows].float().cpu().numpy().copy()
                for name, values in outputs.items()
            }

    @property
    def shapes(self) -> list[BatchShape]:
        """Those that are recorded."""
        return list(self._recordings)

    def forget(self) -> None:
        """Give the recordings' memory back."""
        self._recordings.clear()
        self._seen.clear()
        self._used.clear()

    def _recordable(self, exact: BatchShape) -> BatchShape | None:
        """The shape that a batch is recorded in, None where it comes for the first time."""
        if self._record is None or exact.tokens > MOST_RECORDED_TOKENS:
            return None
        if time.monotonic() < self._not_before:
            return None
        self._runs += 1
        shape = exact.rounded_up(self._encoder.most_tokens)
        if shape in self._recordings:
            return shape
        self._seen[shape] += 1
        return shape if self._seen[shape] >= _FEWEST_SEEN and self._has_room() else None

    def _has_room(self) -> bool:
        """Whether one more may be recorded; the one that was used longest ago may make room."""
        if len(self._recordings) < MOST_RECORDINGS:
            return True
        oldest = next(iter(self._recordings))
        if self._runs - self._used[oldest] < STALE_RUNS:
            return False  # shapes that take turns would be recorded anew at every turn
        del self._recordings[oldest], self._used[oldest], self._seen[oldest]
        return True

    def _recording(self, packed: Tensor, shape: BatchShape) -> Recording | None:
        """The recording of a shape, made of a batch of it where there is none."""
        if shape not in self._recordings and self._record is not None:
            given = packed.to(self._device, copy=True)
            try:
                replay, outputs = self._record(lambda: self._encoder(given, shape))
            except RuntimeError as error:
                self._give_up(shape, error)
                return None
            self._recordings[shape] = Recording(given, replay, outputs)
        self._recordings.move_to_end(shape)
        self._used[shape] = self._runs
        return self._recordings[shape]

    def _give_up(self, shape: BatchShape, error: RuntimeError) -> None:
        """Batches are run without recordings: for a while where memory was short, else for good."""
        if out_of_memory(error) or (error.__context__ and out_of_memory(error.__context__)):
            self.forget()
            self._not_before = time.monotonic() + _SHORT_OF_MEMORY_S
            log.warning("no memory for a CUDA graph of %r, none for a minute: %s", shape, error)
        else:
            self._record = None
            log.warning("no CUDA graph of %r, and none is tried again: %s", shape, error)
