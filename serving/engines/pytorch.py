"""PyTorch on a CPU: the source model itself, which every export is compared with."""

from pathlib import Path

import numpy as np
import torch

from data.errors import EngineError
from serving.encoder import load_encoder
from serving.engines.protocol import Logits, TokenIds


class PytorchEngine:
    """Serves the torch format, fp32."""

    def __init__(self, folder: Path, *, threads: int = 1):
        """Load a torch model folder."""
        torch.set_num_threads(threads)
        self._model = load_encoder(folder)
        self.name = f"torch-{torch.__version__}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """See ``Engine.run``."""
        try:
            with torch.inference_mode():
                values = self._model(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))
        except (RuntimeError, IndexError) as error:
            raise EngineError(
                f"torch failed on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        return Logits(*(np.asarray(value.numpy(), dtype=np.float32) for value in values))
