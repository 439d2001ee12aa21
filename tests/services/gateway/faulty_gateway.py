"""The gateway's command with parts that fail on command: what a file says, which is read each time.

    python faulty_gateway.py FAULT_FILE [options of serving.gateway.app]

memory      every batch is out of memory
nan         every answer is NaN
exit        every thread that runs a batch is told to end
vanish      every one ends in C, unseen by Python
exit once   one is told to end, and the file is emptied
vanish once one ends in C, likewise
tokenizer   the tokenizer raises on every text
taken       no memory is free
"""

import ctypes
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from data.errors import EngineMemoryError
from serving.analyzer import Analyzer, load_analyzer
from serving.batching.memory import HostMemory, MemoryReading
from serving.embedder import Embedder
from serving.engines.choice import load_embedder
from serving.gateway import app, arms, embedding_arm, sharing

FAULT = Path(sys.argv.pop(1))
ONE_AT_A_TIME = threading.Lock()


class FaultyEngine:
    """A real engine until it is told to fail."""

    def __init__(self, engine: Any):
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, input_ids: Any, attention_mask: Any) -> Any:
        with ONE_AT_A_TIME:
            fault = FAULT.read_text()
            if fault.endswith("once"):
                FAULT.write_text("")
        if fault == "memory":
            raise EngineMemoryError("no room; a smaller batch may do")
        if fault in {"exit", "exit once"}:
            raise SystemExit("a thread dies")
        if fault in {"vanish", "vanish once"}:
            ctypes.CDLL(None).pthread_exit(None)
        outputs = self._engine.run(input_ids, attention_mask)
        if fault == "nan":
            return {name: np.full_like(values, np.nan) for name, values in outputs.items()}
        return outputs


class FaultyTokenizer:
    """A real tokenizer until it is told to fail."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("encode") and FAULT.read_text() == "tokenizer":
            raise RuntimeError("the tokenizer broke")
        return getattr(self._tokenizer, name)


class FaultyMemory(HostMemory):
    """The machine's memory until it is said to be taken."""

    def __call__(self) -> MemoryReading:
        reading = super().__call__()
        return replace(reading, free=0) if FAULT.read_text() == "taken" else reading


def faulty_embedder(folder: Path, **options: Any) -> Embedder:
    whole = load_embedder(folder, **options)
    return Embedder(FaultyTokenizer(whole.tokenizer), FaultyEngine(whole.engine), whole.spec)


def faulty_analyzer(folder: Path, **options: Any) -> Analyzer:
    whole = load_analyzer(folder, **options)
    parts = FaultyTokenizer(whole.tokenizer), FaultyEngine(whole.engine)
    return Analyzer(*parts, whole.spec, whole.manifest)


if __name__ == "__main__":
    embedding_arm.load_embedder = faulty_embedder
    arms.load_analyzer = faulty_analyzer
    sharing.HostMemory = FaultyMemory
    typer.run(app.main)
