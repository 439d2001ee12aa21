"""What the GPU suite lets run against each other: torch in its several ways, and TensorRT.

Each is an ``Engine``, made on the device; ``making`` says how, by name, the reference first.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from serving.engines.choice import ENGINES, engines_of, make_engine
from serving.engines.half_encoder import AttentionKind, HalfPrecision
from serving.engines.protocol import Engine, Outputs, TokenIds
from serving.engines.torch_cuda import TorchCudaEngine
from serving.text_encoder import TextEncoder

REFERENCE: Final = "torch fp32, padded"
BUCKETS: Final = (32, 64, 128)
BUCKET_TOKENS: Final = 4_096
"""Tokens of a row, and of a whole batch, that the model is compiled for where shapes are fixed."""
Compiled = Literal["no", "dynamic", "bucket"]


class Contestant(NamedTuple):
    """One that is measured.

    Attributes:
        precision: of its products, for the roofline.
        make: the engine.
    """

    precision: str
    make: Callable[[], Engine]


class PaddedEngine:
    """The transformers model itself on a device, padded, eager or compiled."""

    batch_invariant = True
    computes_padding = True
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(
        self, model: TextEncoder, dtype: torch.dtype, device: torch.device, compiled: Compiled
    ) -> None:
        self._model = cast("TextEncoder", copy.deepcopy(cast("nn.Module", model)).to(device))
        self._model.backbone.to(dtype)
        self._device, self._compiled = device, compiled
        self._states = self._read
        if compiled != "no":
            self._states = torch.compile(self._read, dynamic=compiled == "dynamic")
        self.name = f"torch-{torch.__version__}-{device}-{dtype}-padded-compiled-{compiled}"

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._model.states(ids, mask)

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        if self._compiled != "bucket":
            return self._run(input_ids, attention_mask)
        parts = [
            {name: values[:rows] for name, values in self._run(ids, mask).items()}
            for ids, mask, rows in in_buckets(input_ids, attention_mask)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        ids, mask = (
            torch.from_numpy(each).to(self._device) for each in (input_ids, attention_mask)
        )
        with torch.inference_mode():
            values = self._model.outputs(self._states(ids, mask).float(), mask)
            return {name: value.float().cpu().numpy() for name, value in values.items()}


def in_buckets(
    input_ids: TokenIds, attention_mask: TokenIds
) -> Iterator[tuple[TokenIds, TokenIds, int]]:
    """A batch in parts of a few fixed shapes, with how many rows of each are real.

    Rows that are no windows have one real token, since attention over none is not a number.
    """
    tokens = input_ids.shape[1]
    longest = next((bucket for bucket in BUCKETS if bucket >= tokens), tokens)
    size = max(BUCKET_TOKENS // longest, 1)
    for start in range(0, len(input_ids), size):
        rows = min(size, len(input_ids) - start)
        ids, mask = (np.zeros((size, longest), dtype=np.int64) for _ in range(2))
        ids[:rows, :tokens] = input_ids[start : start + rows]
        mask[:rows, :tokens] = attention_mask[start : start + rows]
        mask[rows:, 0] = 1
        yield ids, mask, rows


class CompiledUnpadded(TorchCudaEngine):
    """The unpadded engine with its layers compiled for any number of tokens."""

    def __init__(self, model: TextEncoder, precision: HalfPrecision, device: str) -> None:
        super().__init__(model, precision=precision, device=device, recorder=lambda: None)
        encoder = self._encoder
        vars(encoder)["states"] = torch.compile(encoder.states, dynamic=True)
        self.name += "-compiled"


def _unpadded(
    model: TextEncoder,
    precision: HalfPrecision,
    device: str,
    *,
    graphs: bool,
    attention: AttentionKind | None = None,
) -> Engine:
    recorder: Any = None if graphs else (lambda: None)
    return TorchCudaEngine(
        model, precision=precision, device=device, attention=attention, recorder=recorder
    )


def contestants(
    model: TextEncoder, device: torch.device, *, folder: Path | None, compiled: bool
) -> dict[str, Contestant]:
    """By name, the reference first.

    Args:
        model: on the CPU.
        device: to measure on.
        folder: of the model, whose GPU engines (TensorRT's) are measured too.
        compiled: whether to compile; the first runs then take tens of seconds.
    """

    def padded(dtype: torch.dtype, way: Compiled = "no") -> Callable[[], Engine]:
        return lambda: PaddedEngine(model, dtype, device, way)

    unpadded = partial(_unpadded, model, device=str(device))
    found = {
        REFERENCE: Contestant("fp32", padded(torch.float32)),
        "torch fp16, padded": Contestant("fp16", padded(torch.float16)),
        "torch bf16, padded": Contestant("bf16", padded(torch.bfloat16)),
        "torch-cuda-fp16": Contestant("fp16", lambda: unpadded("fp16", graphs=True)),
        "torch-cuda-bf16": Contestant("bf16", lambda: unpadded("bf16", graphs=True)),
        "torch-cuda-fp16, no graphs": Contestant("fp16", lambda: unpadded("fp16", graphs=False)),
        "torch-cuda-fp16, masked": Contestant(
            "fp16", lambda: unpadded("fp16", graphs=True, attention="masked")
        ),
    }
    if compiled:
        found |= {
            "torch fp16, compiled, dynamic": Contestant("fp16", padded(torch.float16, "dynamic")),
            "torch-cuda-fp16, compiled": Contestant(
                "fp16", lambda: CompiledUnpadded(model, "fp16", str(device))
            ),
            "torch fp16, compiled, bucket": Contestant("fp16", padded(torch.float16, "bucket")),
        }
    return found | _from_folder(folder)


def _from_folder(folder: Path | None) -> dict[str, Contestant]:
    """Engines that a folder holds files for, beside torch's own."""
    if folder is None:
        return {}
    names = [
        name
        for name in engines_of(folder)
        if ENGINES[name].device == "gpu" and not name.startswith("torch")
    ]
    return {
        name: Contestant(name.rpartition("-")[2], partial(make_engine, name, folder))
        for name in names
    }
