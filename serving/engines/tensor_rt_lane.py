"""One profile of a TensorRT engine, with a context, a stream and buffers of its own."""

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch

from data.errors import EngineError, EngineMemoryError
from serving.engines.plan_folder import Profile
from serving.engines.protocol import Outputs, TokenIds
from serving.engines.tensor_rt_library import said, tells_of_memory

INPUTS: Final = ("input_ids", "attention_mask")


class ProfileLane:
    """Runs batches of one profile's length, one at a time; other lanes may run beside it.

    Attributes:
        profile: that it runs.
        device_bytes: that its context and buffers hold; weights are shared by all lanes.
    """

    def __init__(
        self,
        library: Any,
        engine: Any,
        number: int,
        profile: Profile,
        outputs: Sequence[str],
        *,
        device: str,
        log: Any,
    ):
        """Open a lane.

        Args:
            library: TensorRT's module.
            engine: deserialised.
            number: of the profile in the engine.
            profile: what the engine was optimised for under this number.
            outputs: names of what to answer with.
            device: of torch.
            log: what the engine logs to.

        Raises:
            EngineMemoryError: the GPU has too little memory for it.
            EngineError: the engine does not have this profile, these inputs or outputs.
        """
        self.profile = profile
        self._log, self._names = log, list(outputs)
        self._on_gpu = device != "cpu"  # the CPU is for the stand-in of the tests
        self._lock = threading.Lock()
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        # Each context holds the memory of its own profile, not of the largest.
        strategy = library.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        self._context = engine.create_execution_context(strategy)
        shape = (profile.batch, profile.tokens)
        if self._context is None or not self._begin(number, shape):
            raise self._failed(f"cannot make a context for {profile!r}")
        try:
            # On the lane's own stream: one that another stream still fills could be read too soon.
            with torch.cuda.stream(self._stream):
                self._open_buffers(library, engine, shape, device)
        except torch.OutOfMemoryError as error:
            raise EngineMemoryError(
                f"the GPU has no memory for the buffers of {profile!r}: {error}; build smaller "
                "batches, or free memory"
            ) from error
        held = [*self._inputs.values(), *self._outputs.values()]
        self.device_bytes = int(engine.get_device_memory_size_for_profile_v2(number)) + sum(
            buffer.nbytes for buffer in held
        )

    def _open_buffers(self, library: Any, engine: Any, shape: tuple[int, int], device: str) -> None:
        self._staged = {name: self._zeros(shape, pinned=self._on_gpu) for name in INPUTS}
        self._inputs = {name: self._zeros(shape, device=device) for name in INPUTS}
        self._outputs = {
            name: torch.empty(
                tuple(self._context.get_tensor_shape(name)),
                dtype=_torch_type(library, engine.get_tensor_dtype(name)),
                device=device,
            )
            for name in self._names
        }

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """Answer at most the profile's rows, each at most as long as the profile.

        Raises:
            EngineError: TensorRT failed.
            EngineMemoryError: it ran out of memory.
        """
        rows, tokens = input_ids.shape
        given = dict(zip(INPUTS, (input_ids, attention_mask), strict=True))
        with self._lock, torch.cuda.stream(self._stream):
            for name, values in given.items():
                staged, buffer = self._staged[name], self._inputs[name]
                staged[:rows, :tokens] = torch.from_numpy(values)
                staged[:rows, tokens:] = 0  # of the mask: what is padded here is not looked at
                buffer[:rows].copy_(staged[:rows], non_blocking=self._on_gpu)
                self._context.set_input_shape(name, (rows, self.profile.tokens))
                self._context.set_tensor_address(name, buffer.data_ptr())
            for name, buffer in self._outputs.items():
                self._context.set_tensor_address(name, buffer.data_ptr())
            if not self._context.execute_async_v3(self._handle):
                raise self._failed(f"failed on a batch of shape {input_ids.shape!r}")
            # Bringing an output to the host waits for the stream.
            return {
                name: np.array(buffer[:rows].float().cpu().numpy())
                for name, buffer in self._outputs.items()
            }

    @property
    def _handle(self) -> int:
        return self._stream.cuda_stream if self._stream is not None else 0

    def _begin(self, number: int, shape: tuple[int, int]) -> bool:
        with torch.cuda.stream(self._stream):
            begun = self._context.set_optimization_profile_async(number, self._handle)
            fits = [self._context.set_input_shape(name, shape) for name in INPUTS]
        if self._stream is not None:
            self._stream.synchronize()
        return bool(begun) and all(fits)

    def _zeros(
        self, shape: tuple[int, int], *, device: str = "cpu", pinned: bool = False
    ) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=device, pin_memory=pinned)

    def _failed(self, what: str) -> EngineError:
        why = said(self._log)
        kind = EngineMemoryError if tells_of_memory(why) else EngineError
        return kind(f"TensorRT {what}: {why}; send smaller batches, or build the engine again")


def _torch_type(library: Any, kind: Any) -> torch.dtype:
    """The torch type of an output."""
    types = {
        library.DataType.FLOAT: torch.float32,
        library.DataType.HALF: torch.float16,
        library.DataType.BF16: torch.bfloat16,
    }
    if kind not in types:
        raise EngineError(
            f"an output has the type {kind!r}, expected a float one; export the model again"
        )
    return types[kind]
