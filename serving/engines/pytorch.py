"""PyTorch on a CPU: the source model itself, which every export is compared with."""

import copy
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from data.errors import EngineError, EngineMemoryError
from serving.engines.protocol import Outputs, TokenIds
from serving.text_encoder import TextEncoder


class PytorchEngine:
    """Serves a model of any architecture as it was trained, or with its backbone in bfloat16."""

    batch_invariant = True
    computes_padding = True
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(
        self,
        model: TextEncoder,
        *,
        precision: Literal["fp32", "bf16"] = "fp32",
        threads: int = 1,
    ):
        """Wrap a model in eval mode.

        Args:
            model: used as it is, so it may not be changed while it serves.
            precision: of the backbone; ``bf16`` computes with a copy of it.
            threads: compute threads of each call; torch has one number for the whole process,
                so the engine made last decides for all.
        """
        torch.set_num_threads(threads)
        self._model = model
        self._reader = model
        if precision == "bf16":
            self._reader = copy.deepcopy(model)
            self._reader.backbone.to(torch.bfloat16)
        self.name = f"torch-{torch.__version__}-{precision}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        return run_torch(
            lambda mask: self._reader.states(torch.from_numpy(input_ids), mask).float(),
            self._model,
            attention_mask,
        )


def run_torch(
    states: Callable[[Tensor], Tensor], model: TextEncoder, attention_mask: TokenIds
) -> Outputs:
    """A model's outputs, with torch's failures as matjip's.

    Args:
        states: (batch, tokens, hidden) in float32, of the mask.
        model: whose outputs of these states are wanted.
        attention_mask: (batch, tokens).

    Raises:
        EngineError: torch failed.
        EngineMemoryError: it ran out of memory.
    """
    try:
        with torch.inference_mode():
            mask = torch.from_numpy(attention_mask)
            values = model.outputs(states(mask), mask)
            return {name: value.float().numpy() for name, value in values.items()}
    except (RuntimeError, IndexError, MemoryError) as error:
        failed = EngineMemoryError if out_of_memory(error) else EngineError
        raise failed(
            f"torch failed on a batch of shape {attention_mask.shape!r}: {error}"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a CPU or a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("can't allocate memory", "out of memory", "not enough memory", "bad_alloc")
    return any(word in str(error) for word in words)
