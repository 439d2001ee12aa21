"""What every engine is: padded token ids in, the model's named outputs out, one row per window."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TokenIds = NDArray[np.int64]
Outputs = dict[str, Floats]
"""Output name → (batch, …): a classifier's heads (serving/logits.py), or ``embedding``."""


class Engine(Protocol):
    """Runs one model. Safe to call from several threads at once.

    Attributes:
        name: library, version and precision, for people and metrics.
        batch_invariant: no answer depends on its batch-mates, beyond the last bits of a float.
        computes_padding: a padded token costs what a real one does; False where it is left out.
        length_buckets: tokens that rows are padded to, fewest first; without, to the longest row's.
        max_rows: that one batch may have at most; None is any number.
    """

    name: str
    batch_invariant: bool
    computes_padding: bool
    length_buckets: tuple[int, ...]
    max_rows: int | None

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """Answer one padded batch of windows.

        Args:
            input_ids: (batch, tokens), padded on the right.
            attention_mask: (batch, tokens), 1 for a real token and 0 for padding.

        Raises:
            EngineError: the engine failed on this batch.
            EngineMemoryError: it ran out of memory; a smaller batch may do.
        """
        ...
