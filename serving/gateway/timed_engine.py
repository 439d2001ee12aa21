"""An engine that also says how long it took, as more outputs of every row."""

import time
from typing import Final

import numpy as np

from serving.engines.protocol import Engine, Outputs, TokenIds

BATCH_SECONDS: Final = "engine_seconds"
"""What the row's whole batch took: how long its caller waited for it."""
ROW_SECONDS: Final = "row_seconds"
"""The row's part of that: by its tokens, or the same for all where padding is computed too."""


class TimedEngine:
    """Wraps an engine; its outputs have two more, each (rows,)."""

    def __init__(self, engine: Engine):
        """Wrap an engine."""
        self._engine = engine
        self.name = engine.name
        self.batch_invariant = engine.batch_invariant
        self.computes_padding = engine.computes_padding
        self.length_buckets = engine.length_buckets
        self.max_rows = engine.max_rows

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        started = time.perf_counter()
        outputs = self._engine.run(input_ids, attention_mask)
        seconds = np.float32(time.perf_counter() - started)
        rows = len(input_ids)
        if self.computes_padding:
            share = np.full(rows, 1.0 / rows, dtype=np.float32)
        else:
            tokens = attention_mask.sum(axis=1, dtype=np.float32)
            share = tokens / max(float(tokens.sum()), 1.0)
        whole = np.full(rows, seconds, dtype=np.float32)
        return outputs | {BATCH_SECONDS: whole, ROW_SECONDS: (share * seconds).astype(np.float32)}
