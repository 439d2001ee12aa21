"""matjip, sentence-transformers and infinity on the same texts: whole path, from texts to vectors.

Each contestant is a process of its own, in its own environment, on one thread. All are started,
then take turns round by round, and are compared by processor time, tokenising included. infinity is
called from Python, without its HTTP server, which is to its favour; matjip goes through the runner
that the gateway uses. text-embeddings-inference is a Rust server that no Python package brings, so
it is not here.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from bench.competitor_worker import ONNX_INT8, OPENVINO_INT8
from bench.corpus import quality_texts
from bench.engines import speed_texts
from bench.models import embedding_folder
from bench.progress import say
from bench.source_models import ROOT, Name, cache_folder, model_folder
from data.manifest import write_json
from serving.engines.protocol import Floats
from training.retrieval_parity import measure_retrieval

WORKER: Final = ROOT / "bench" / "competitor_worker.py"
TEXTS: Final = 96
BATCH_SIZES: Final = (16, 8, 32)
"""One a round, to find the size that suits each. matjip's runner chooses for itself."""
LAST_ROUNDS: Final = 3
"""Of the fastest settings, each at its own size: as many for every library, and these count."""
_WARM_UP: Final = 16
_BEHIND: Final = 1.5
"""Who takes so many times what another setting of the same library takes is not asked again."""
_QUALITY_BATCH: Final = 32
_AT_ONCE: Final = 2
OWN: Final = "matjip"
SENTENCE_TRANSFORMERS: Final = "sentence-transformers"
INFINITY: Final = "infinity"
ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "PYTHONPATH": str(ROOT),
}


@dataclass(frozen=True)
class Contestant:
    """One library in one setting.

    Attributes:
        who: whose it is.
        name: the setting.
        environment: under the cache folder, or "" for matjip's own.
        folder: under a model's folder: what it reads.
        settings: for the worker.
        int8: whether it computes in int8.
    """

    who: str
    name: str
    environment: str
    folder: str
    settings: dict[str, str]
    int8: bool = False

    def command(self, model: Name) -> list[str]:
        """What starts it."""
        if self.who == OWN:
            folder = embedding_folder(model)
            return [sys.executable, "-m", "bench.own_worker", str(folder), self.settings["engine"]]
        python = cache_folder() / self.environment / "bin" / "python"
        folder = model_folder(model) / self.folder
        return [str(python), str(WORKER), self.who, str(folder), json.dumps(self.settings)]


def competitors() -> list[Contestant]:
    """Every setting of theirs that may be the fastest on a CPU."""
    st, onnx = "sentence-transformers", "sentence-transformers-onnx"
    rows = (
        (st, "torch fp32", st, "source", {"backend": "torch"}),
        (st, "torch bf16", st, "source", {"backend": "torch", "torch_dtype": "bfloat16"}),
        (st, "ONNX int8", onnx, "onnx", {"backend": "onnx", "file_name": ONNX_INT8}),
        (
            st,
            "OpenVINO int8",
            st,
            "openvino",
            {"backend": "openvino", "file_name": OPENVINO_INT8},
        ),
        (INFINITY, "torch fp32", INFINITY, "source", {"engine": "torch", "dtype": "float32"}),
        (INFINITY, "torch bf16", INFINITY, "source", {"engine": "torch", "dtype": "bfloat16"}),
        (INFINITY, "torch int8", INFINITY, "source", {"engine": "torch", "dtype": "int8"}),
        (
            INFINITY,
            "optimum int8",
            INFINITY,
            "onnx-infinity",
            {"engine": "optimum", "pooling_method": "mean"},
        ),
    )
    return [Contestant(*row, int8="int8" in row[1]) for row in rows]


class Running:
    """A contestant that has been started."""

    def __init__(self, contestant: Contestant, model: Name):
        """Start it; it loads its model meanwhile."""
        self.contestant = contestant
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            contestant.command(model),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
        )

    def __enter__(self) -> Self:
        """As it is."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(
        self, texts: Sequence[str], *, batch_size: int, vectors: Path | None = None
    ) -> dict[str, float]:
        """Let it embed texts; its seconds, and its vectors into a file.

        Raises:
            RuntimeError: it ended; the message has the last of what it said.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        line = json.dumps(
            {
                "texts": list(texts),
                "batch_size": batch_size,
                "vectors": str(vectors) if vectors else None,
            }
        )
        try:
            stdin.write(line + "\n")
            stdin.flush()
            answer = stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._log.seek(0)
            raise RuntimeError(
                f"{self.contestant.who} {self.contestant.name} ended: {self._log.read()[-600:]}; "
                "run `make bench-setup`, which installs it"
            )
        return dict(json.loads(answer))


def vectors_of(contestant: Contestant, texts: Sequence[str], path: Path) -> Floats | str:
    """What it answers with MiniLM, or why it does not."""
    try:
        with Running(contestant, "minilm") as running:
            running.ask(texts, batch_size=_QUALITY_BATCH, vectors=path)
    except RuntimeError as error:
        return str(error)
    finally:
        say(f"quality: {key_of(contestant)} is done")
    return np.asarray(np.load(path))


def measure_quality(contestants: Sequence[Contestant], folder: Path) -> dict[str, Any]:
    """MiniLM in every setting, against the first, which is sentence-transformers in fp32.

    Raises:
        RuntimeError: the first does not run.
    """
    texts = quality_texts()
    paths = [folder / f"{number}.npy" for number in range(len(contestants))]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = list(pool.map(vectors_of, contestants, repeat(texts), paths))
    failures = [vectors for vectors in found[:1] if isinstance(vectors, str)]
    if failures:
        raise RuntimeError(failures[0])
    return {
        key_of(contestant): {"failure": vectors}
        if isinstance(vectors, str)
        else measure_retrieval(found[0], vectors).model_dump()
        for contestant, vectors in zip(contestants, found, strict=True)
    }


def measure_speed(
    contestants: Sequence[Contestant], texts: Sequence[str], *, batch_sizes: Sequence[int]
) -> dict[str, Any]:
    """All take turns; processor and wall seconds of each at every batch size."""
    answer: dict[str, Any] = {
        key_of(contestant): {"cpu_s": [], "wall_s": [], "batch_size": [], "last_cpu_s": []}
        for contestant in contestants
    }
    started = [Running(contestant, "electra-base") for contestant in contestants]
    try:
        for running in started:  # the others load their models meanwhile
            _try(answer[key_of(running.contestant)], running, texts[:_WARM_UP], batch_sizes[:1])
            say(f"speed: {key_of(running.contestant)} is ready")
        for row in answer.values():
            row.update(cpu_s=[], wall_s=[], batch_size=[])
        asked = [each for each in started if "failure" not in answer[key_of(each.contestant)]]
        for batch_size in batch_sizes:
            for running in asked:
                _try(answer[key_of(running.contestant)], running, texts, [batch_size])
            asked = _still(asked, answer)
            say(f"speed: every library in batches of {batch_size}")
        _run_last_rounds(asked, answer, texts)
    finally:
        for running in started:
            running.__exit__(None, None, None)
    return answer


def _try(
    row: dict[str, Any], running: Running, texts: Sequence[str], batch_sizes: Sequence[int]
) -> None:
    try:
        for batch_size in batch_sizes:
            seconds = running.ask(texts, batch_size=batch_size)
            row["cpu_s"].append(seconds["cpu_s"])
            row["wall_s"].append(seconds["wall_s"])
            row["batch_size"].append(batch_size)
    except RuntimeError as error:
        row["failure"] = str(error)


def _run_last_rounds(
    asked: Sequence[Running], answer: dict[str, Any], texts: Sequence[str]
) -> None:
    """Those that did not fall behind once more, in turn, each at the size that suited it best."""
    for number in range(LAST_ROUNDS):
        for running in asked:
            row = answer[key_of(running.contestant)]
            row["best_batch"] = row["batch_size"][row["cpu_s"].index(min(row["cpu_s"]))]
            try:
                seconds = running.ask(texts, batch_size=row["best_batch"])
            except RuntimeError as error:
                row["failure"] = str(error)
                continue
            row["last_cpu_s"].append(seconds["cpu_s"])
        say(f"speed: last round {number + 1} of {LAST_ROUNDS}")


def _still(asked: Sequence[Running], answer: dict[str, Any]) -> list[Running]:
    """Those that run, and may yet be the fastest setting of their library."""
    rows = [(each, answer[key_of(each.contestant)]) for each in asked]
    best = [(each, min(row["cpu_s"])) for each, row in rows if "failure" not in row]
    fastest: dict[str, float] = {}
    for each, seconds in best:
        fastest[each.contestant.who] = min(seconds, fastest.get(each.contestant.who, seconds))
    return [each for each, seconds in best if seconds <= _BEHIND * fastest[each.contestant.who]]


def key_of(contestant: Contestant) -> str:
    """What a contestant is called in tables."""
    return f"{contestant.who} {contestant.name}"


def main(out: str, own_engines: str, batch_sizes: str = "") -> None:
    """Measure our engines (names with commas) and theirs, and write what was measured."""
    own = [
        Contestant(OWN, name, "", "", {"engine": name}, int8="int8" in name)
        for name in own_engines.split(",")
    ]
    everyone = [*competitors(), *own]
    with tempfile.TemporaryDirectory() as folder:
        quality = measure_quality(everyone, Path(folder))
    texts = speed_texts(TEXTS)
    sizes = [int(size) for size in batch_sizes.split(",")] if batch_sizes else BATCH_SIZES
    speed = measure_speed(everyone, texts, batch_sizes=sizes)
    rows = [
        {
            "who": contestant.who,
            "name": contestant.name,
            "int8": contestant.int8,
            "quality": quality[key_of(contestant)],
            **speed[key_of(contestant)],
        }
        for contestant in everyone
    ]
    write_json(Path(out), {"texts": len(texts), "rows": rows})


if __name__ == "__main__":
    main(*sys.argv[1:])
