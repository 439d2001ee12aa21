"""A module like ``tensorrt`` whose plans are ONNX files, run by ONNX Runtime on the host."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

WIDTH = 64


class Context:
    """An execution context that reads and writes the addresses it was given, as TensorRT's does."""

    def __init__(self, session: Any, profiles: Any):
        self.session, self.profiles, self.at, self.shapes = session, profiles, {}, {}

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.profile = self.profiles[number]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, int]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= self.profile.batch and shape[1] == self.profile.tokens

    def set_tensor_address(self, name: str, address: int) -> None:
        self.at[name] = address

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.shapes["input_ids"][0], WIDTH)

    def execute_async_v3(self, stream: int) -> bool:
        feed = {name: self._memory(name, self.shapes[name], ctypes.c_int64) for name in self.shapes}
        (vectors,) = self.session.run(["embedding"], feed)
        self._memory("embedding", vectors.shape, ctypes.c_float)[:] = vectors
        return True

    def _memory(self, name: str, shape: tuple[int, ...], kind: Any) -> Any:
        size = int(np.prod(shape))
        return np.ctypeslib.as_array((kind * size).from_address(self.at[name])).reshape(shape)


def onnx_as_tensorrt(profiles: Any, *, version: str = "11.4.0.1", context: Any = Context) -> Any:
    """A module like ``tensorrt`` whose plan is an ONNX file."""

    def load(plan: bytes) -> Any:
        session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        names = ["input_ids", "attention_mask", "embedding"]
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=names.__getitem__,
            get_tensor_dtype=lambda name: "float",
            get_device_memory_size_for_profile_v2=lambda number: 1000,
            create_execution_context=lambda strategy: context(session, profiles),
        )

    severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)
    return SimpleNamespace(
        __version__=version,
        ILogger=type("ILogger", (), {"Severity": severity}),
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=load),
        ExecutionContextAllocationStrategy=SimpleNamespace(ON_PROFILE_CHANGE=1),
        DataType=SimpleNamespace(FLOAT="float", HALF="half", BF16="bf16"),
    )
