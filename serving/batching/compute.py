"""One batch through the engine, and which of its rows came out finite."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import EngineError
from serving.engines.protocol import Engine, Outputs
from serving.windows import pad


class Computed(NamedTuple):
    """What a worker brings back.

    Attributes:
        outputs: of the engine, a row per window.
        finite: for each row, whether all of it is; (rows,).
        seconds: in the engine.
    """

    outputs: Outputs
    finite: NDArray[np.bool_]
    seconds: float


def compute(
    engine: Engine, windows: Sequence[Sequence[int]], pad_id: int, *, longest: int
) -> Computed:
    """Pad windows and run them; called in a worker's thread.

    Args:
        engine: that runs them.
        windows: token ids of each.
        pad_id: id of the padding token.
        longest: tokens that rows are padded to.

    Raises:
        EngineError: the engine failed, or answered another number of rows.
    """
    input_ids, mask = pad(windows, pad_id, longest)
    started = time.perf_counter()
    outputs = engine.run(input_ids, mask)
    seconds = time.perf_counter() - started
    finite = np.ones(len(windows), dtype=np.bool_)
    for name, values in outputs.items():
        if len(values) != len(windows):
            raise EngineError(
                f"the engine answered {len(values)!r} rows of {name!r} for {len(windows)!r} "
                "windows; its graph has no free batch axis: export it again"
            )
        finite &= np.isfinite(values.reshape(len(windows), -1)).all(axis=1)
    return Computed(outputs, finite, seconds)
