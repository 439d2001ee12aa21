"""The engine alone, on the core it is given: whole path from texts to vectors, nothing around it.

python -m bench.alone FOLDER ENGINE TEXTS.json
"""

import json
import sys
import time
from pathlib import Path

from serving.engines.choice import load_embedder

_REPEATS = 2


def main(folder: str, engine: str, texts_path: str) -> None:
    """Print texts and tokens a second, by the clock and by processor time."""
    embedder = load_embedder(Path(folder), engine=engine, threads=1)
    texts = json.loads(Path(texts_path).read_bytes())
    embedder.embed(texts)
    wall_s = cpu_s = float("inf")
    for _ in range(_REPEATS):
        began = time.perf_counter(), time.process_time()
        embedder.embed(texts)
        wall_s = min(wall_s, time.perf_counter() - began[0])
        cpu_s = min(cpu_s, time.process_time() - began[1])
    print(json.dumps({"texts_per_s": len(texts) / wall_s, "texts_per_cpu_s": len(texts) / cpu_s}))


if __name__ == "__main__":
    main(*sys.argv[1:])
