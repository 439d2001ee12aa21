"""How well a batch's memory is predicted, for the engines that serve ELECTRA-base's shape.

    python -m bench.memory_model OUT.json ENGINES

Each is fitted as `make tune-engine` fits the one that it chooses, by the same function: made as it
is served, only that it gives back between batches what it would keep. Other batches, drawn at
random, then tell for each engine how many took more than the p99.9 bound, and the median error of
the prediction. Weights are random; memory does not depend on them.
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.corpus import MOST_TOKENS
from bench.models import embedding_folder
from bench.progress import say
from data.errors import EngineError
from data.manifest import write_json
from serving.engines.tune import measure_costs

MAX_BATCH_TOKENS: Final = 512
"""A quarter of what tune-engine asks for, or an engine in fp32 would take four minutes."""
HELD_OUT: Final = 30
_AT_ONCE: Final = 2
_NICENESS: Final = 10


def measure(folder: Path, engines: Sequence[str]) -> dict[str, Any]:
    """Figures of each engine, or why there are none; two at once, since bytes are counted."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(engines, pool.map(partial(_measure_one, folder), engines), strict=True))


def _measure_one(folder: Path, engine: str) -> dict[str, Any]:
    try:
        measured = measure_costs(
            folder,
            engine,
            threads=1,
            max_tokens=MOST_TOKENS,
            max_batch_tokens=MAX_BATCH_TOKENS,
            held_out=HELD_OUT,
        )
        figures = measured.figures()
    except EngineError as error:
        say(f"{engine}: {error}")
        return {"failure": str(error)}
    found = figures.model_dump() | {
        "engine": measured.engine,
        "source": measured.source,
        "fitted_on": len(measured.grid),
        "max_batch_tokens": MAX_BATCH_TOKENS,
        "cpu_s": sum(batch.seconds for batch in (*measured.grid, *measured.held_out)),
    }
    say(f"{engine}: {found}")
    return found


def main(out: str, engines: str) -> None:
    """Measure engines (names with commas), and write what was measured."""
    os.nice(_NICENESS)  # what is measured beside it goes by the clock
    write_json(Path(out), measure(embedding_folder("electra-base"), engines.split(",")))


if __name__ == "__main__":
    main(*sys.argv[1:])
