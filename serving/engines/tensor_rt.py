"""TensorRT 11 on an NVIDIA GPU: an engine built for this GPU, at fixed batch sizes.

``pip install '.[trt]'`` brings the library. A batch is padded to the smallest profile that holds
it, so answers do not depend on batch-mates: INT8 scales are static.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from data.errors import EngineError, EngineMemoryError
from serving.engines.protocol import Outputs, TokenIds
from serving.engines.pytorch import out_of_memory
from serving.engines.tensor_rt_plan import (
    ENGINE_NAME,
    check_machine,
    read_plan,
    smallest_profile,
)


def load_tensorrt() -> Any:
    """The ``tensorrt`` module.

    Raises:
        EngineError: it is not installed, with the extra that brings it.
    """
    try:
        return import_module("tensorrt")
    except ImportError as error:
        raise EngineError(
            f"TensorRT cannot be imported: {error}; pip install '.[trt]' on a machine with an "
            "NVIDIA GPU"
        ) from error


def compute_capability() -> str:
    """Of this machine's GPU, such as "9.0".

    Raises:
        EngineError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise EngineError(
            f"TensorRT needs an NVIDIA GPU and torch {torch.__version__!r} sees none; use a "
            "machine with one and torch's CUDA wheel, or serve the ONNX graph on the CPU"
        )
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


class TensorRtEngine:
    """Serves an engine folder (serving/engines/tensor_rt_plan.py). One batch runs at a time."""

    batch_invariant = True
    computes_padding = True

    def __init__(self, folder: Path, outputs: Sequence[str]):
        """Load an engine.

        Args:
            folder: that ``training.build_engine`` wrote on this machine.
            outputs: names of the outputs to answer with.

        Raises:
            EngineError: TensorRT or the GPU is missing, or the engine is for another machine.
            ArtifactError: the folder holds no engine.
        """
        self.plan = read_plan(folder)
        trt = load_tensorrt()
        check_machine(
            self.plan,
            compute_capability=compute_capability(),
            tensorrt_version=str(trt.__version__),
        )
        self._logger = trt.Logger(trt.Logger.ERROR)
        # The engine lives no longer than its runtime.
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine((folder / ENGINE_NAME).read_bytes())
        if self._engine is None:
            raise EngineError(
                f"TensorRT {trt.__version__!r} cannot read {str(folder / ENGINE_NAME)!r}; build "
                "the engine again"
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineMemoryError(
                f"the GPU has no room for {self._engine.device_memory_size_v2!r} bytes that the "
                "engine works in; free memory or build it for smaller batches"
            )
        self._outputs = list(outputs)
        self._types = {
            name: torch.float16
            if self._engine.get_tensor_dtype(name) == trt.float16
            else torch.float32
            for name in self._outputs
        }
        self._lock = Lock()
        self.name = f"tensorrt-{trt.__version__}-{self.plan.precision}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        rows, tokens = input_ids.shape
        index = smallest_profile(self.plan.profiles, rows, tokens)
        shape = (self.plan.profiles[index].batch, self.plan.profiles[index].tokens)
        try:
            with self._lock:
                values = self._run(index, shape, input_ids, attention_mask)
        except (RuntimeError, MemoryError) as error:
            failed = EngineMemoryError if out_of_memory(error) else EngineError
            raise failed(f"TensorRT failed on a batch of shape {shape!r}: {error}") from error
        return {name: value[:rows] for name, value in values.items()}

    def _run(self, index: int, shape: tuple[int, int], ids: TokenIds, mask: TokenIds) -> Outputs:
        stream = torch.cuda.current_stream()
        self._context.set_optimization_profile_async(index, stream.cuda_stream)
        held = []
        for name, values in (("input_ids", ids), ("attention_mask", mask)):
            padded = np.zeros(shape, dtype=np.int64)
            padded[: values.shape[0], : values.shape[1]] = values
            if name == "attention_mask":
                padded[values.shape[0] :, 0] = 1  # an empty row would divide by its length
            held.append(torch.from_numpy(padded).cuda(non_blocking=True))
            self._context.set_input_shape(name, shape)
            self._context.set_tensor_address(name, held[-1].data_ptr())
        answers = {}
        for name in self._outputs:
            answers[name] = torch.empty(
                tuple(self._context.get_tensor_shape(name)),
                dtype=self._types[name],
                device="cuda",
            )
            self._context.set_tensor_address(name, answers[name].data_ptr())
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("execute_async_v3 returned false")
        stream.synchronize()
        return {name: answers[name].float().cpu().numpy() for name in self._outputs}
