"""matjip as a contestant: texts through the asynchronous runner, as the gateway sends them.

    python -m bench.own_worker FOLDER ENGINE

Speaks as competitor_worker.py does.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.competitor_worker import answers_apart, serve
from data.errors import EngineError
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.memory import HostMemory
from serving.batching.runner import BatchRunner
from serving.batching.settings import BatchSettings
from serving.engines.choice import load_embedder

_BATCH_MS: Final = 1_000.0
"""Nobody waits for one text here: what counts is how fast all are done, as with the others."""


def encoder(folder: Path, engine: str) -> Callable[..., Any]:
    """Texts to vectors on one compute thread; the runner chooses its batches itself."""
    model = load_embedder(folder, engine=engine, threads=1)
    runner = BatchRunner(
        model,
        name="bench",
        admission=Admission(HostMemory()),
        costs=CostModel.unfitted(computes_padding=model.engine.computes_padding),
        settings=BatchSettings(workers=1, max_batch_ms=_BATCH_MS),
    )
    loop = asyncio.new_event_loop()
    loop.run_until_complete(runner.start())

    def encode(texts: Sequence[str], _batch_size: int) -> Any:
        answers = loop.run_until_complete(runner.answer(texts))
        for answer in answers:
            if isinstance(answer, EngineError):
                raise answer
        return np.stack(answers)

    return encode


if __name__ == "__main__":
    answers = answers_apart()
    serve(encoder(Path(sys.argv[1]), sys.argv[2]), answers)
