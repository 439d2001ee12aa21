"""PyTorch on a CPU: the source model itself, which every export is compared with."""

import torch

from data.errors import EngineError, EngineMemoryError
from serving.engines.protocol import Outputs, TokenIds
from serving.text_encoder import TextEncoder


class PytorchEngine:
    """Serves a model as it was trained, in float32."""

    batch_invariant = True
    computes_padding = True

    def __init__(self, model: TextEncoder, *, threads: int = 1):
        """Wrap a model in eval mode."""
        torch.set_num_threads(threads)
        self._model = model
        self.name = f"torch-{torch.__version__}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        try:
            with torch.inference_mode():
                mask = torch.from_numpy(attention_mask)
                states = self._model.states(torch.from_numpy(input_ids), mask)
                values = self._model.outputs(states, mask)
        except (RuntimeError, IndexError, MemoryError) as error:
            failed = EngineMemoryError if out_of_memory(error) else EngineError
            raise failed(
                f"torch failed on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        return {name: value.float().numpy() for name, value in values.items()}


def out_of_memory(error: BaseException) -> bool:
    """Whether torch ran out of memory, on a CPU or a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)
