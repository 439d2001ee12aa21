"""Fits the cost model of one engine on this machine, in a process that does nothing else.

    python -m serving.batching.calibrate REQUEST.json ANSWER.json

measures what ``calibrate`` asks for: a grid of batches for the fit, and other batches, drawn at
random, that tell how wrong it is. glibc is told to give memory back at once, so that every batch
starts from nothing; an engine with an arena of its own must be made without it, and one that keeps
memory otherwise is asked to ``forget()`` it before each batch. Each batch is run once before it
counts: what a library compiles for a new shape and keeps (oneDNN: half a MiB a primitive, 1,024 of
them) is no batch's but the process's, which live readings of the memory see, and which the reserve
is for.
"""

import argparse
import importlib
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from data.errors import EngineError
from serving.batching.costs import CostModel, Measurement, fit_costs
from serving.batching.peak_memory import PeakSource, gpu_peak, host_peak
from serving.batching.shapes import Shape, shape_of
from serving.engines.protocol import Engine
from serving.windows import pad

_ROWS: Final = (1, 2, 5, 8, 16, 48, 128)
_TOKENS: Final = (8, 13, 24, 32, 53, 64, 101, 128, 211, 256, 419, 512)
"""Some that no block of a product divides: they take more than a line through the others says."""
_GIVE_BACK: Final = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
_SEED: Final = 20_261_130
_FEWEST_TOKENS: Final = 32
_REPEATS: Final = 2
_TELLING_TOKENS: Final = 256
"""Padded tokens from which on a batch's memory is more than pages that are free by chance."""
_LEAST_BYTES: Final = 64
"""A token's, of any real batch: one activation of 16 features."""
_MOST_KEPT: Final = 0.25
_TIMEOUT_S: Final = 1800.0


class CalibrationRequest(BaseModel):
    """Which engine to measure, and on what.

    ``make`` is a function of an importable module, ``module:function``; it is called with
    ``arguments`` in the process that measures, and returns an ``Engine``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    make: str = Field(pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, JsonValue] = {}
    device: Literal["cpu", "gpu"] = "cpu"
    max_tokens: int = Field(ge=8, description="Of one window.")
    max_batch_tokens: int = Field(ge=_FEWEST_TOKENS, description="Padded tokens of one batch.")
    held_out: int = Field(default=60, ge=0, description="Batches that the fit does not see.")


class MeasuredBatch(BaseModel):
    """One batch as it was run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    longest: int
    tokens: int
    squares: int
    bytes: int
    seconds: float = Field(description="Of the process's CPU on a CPU, else of the clock.")

    def measurement(self) -> Measurement:
        """As ``fit_costs`` takes it."""
        shape = Shape(self.rows, self.longest, self.tokens, self.squares)
        return Measurement(shape, self.bytes, self.seconds)


class MemoryFigures(BaseModel):
    """How good the predicted memory is on batches that the fit did not see."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_p999_under: int = Field(description="Batches that took more than the p99.9 bound.")
    memory_median_error: float = Field(description="Of the likely bytes, relative.")
    memory_median_bound: float = Field(description="The p99.9 bound over what was taken, median.")
    held_out: int


class Calibration(BaseModel):
    """What was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    computes_padding: bool
    source: PeakSource
    grid: list[MeasuredBatch]
    held_out: list[MeasuredBatch]

    def costs(self) -> CostModel:
        """The cost model that the grid gives.

        Raises:
            EngineError: many batches seem to take no memory, so the engine keeps it between them.
        """
        large = [each for each in self.grid if each.rows * each.longest >= _TELLING_TOKENS]
        kept = [each for each in large if each.bytes < _LEAST_BYTES * each.rows * each.longest]
        # A GPU engine may hold its workspace from the start; the memory of a CPU's is its batches'.
        if self.source in {"VmHWM", "sampled"} and len(kept) > _MOST_KEPT * len(large):
            raise EngineError(
                f"{len(kept)!r} of {len(large)!r} batches of {self.engine!r} seem to take no "
                "memory: the engine keeps it from batch to batch; make it without an arena, or "
                "give it a forget()"
            )
        batches = [batch.measurement() for batch in self.grid]
        return fit_costs(batches, computes_padding=self.computes_padding)

    def figures(self) -> MemoryFigures:
        """How good it is on the rest.

        Raises:
            ValueError: nothing was held out.
        """
        if not self.held_out:
            raise ValueError("held_out=0 batches tell no error; ask for 60")
        costs = self.costs()
        rest = [batch.measurement() for batch in self.held_out]
        likely = np.asarray([costs.bytes_likely(each.shape) for each in rest])
        bounds = np.asarray([costs.bytes_needed(each.shape) for each in rest])
        taken = np.asarray([each.bytes for each in rest], dtype=np.float64)
        return MemoryFigures(
            memory_p999_under=int((taken > bounds).sum()),
            memory_median_error=float(np.median(np.abs(likely - taken) / np.maximum(taken, 1))),
            memory_median_bound=float(np.median(bounds / np.maximum(taken, 1))),
            held_out=len(rest),
        )


def calibrate(request: CalibrationRequest, *, timeout_s: float = _TIMEOUT_S) -> Calibration:
    """Measure an engine in a process of its own.

    Raises:
        EngineError: the process failed or took too long; its last lines say why.
    """
    with tempfile.TemporaryDirectory(prefix="calibrate-") as name:
        asked, answered = Path(name) / "request.json", Path(name) / "answer.json"
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "serving.batching.calibrate", str(asked), str(answered)]
        try:
            done = subprocess.run(
                command,
                env=dict(os.environ) | _GIVE_BACK,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"{request.make!r} was not calibrated in {timeout_s!r} s; lower max_batch_tokens="
                f"{request.max_batch_tokens!r} or allow more time"
            ) from error
        try:
            return Calibration.model_validate_json(answered.read_bytes())
        except (OSError, ValidationError) as error:
            raise EngineError(
                f"{request.make!r} could not be calibrated: {done.stderr[-800:]!r}; make the "
                "engine run in a process of its own first"
            ) from error


def measure(request: CalibrationRequest) -> Calibration:
    """Measure an engine in this process; ``calibrate`` does so in another.

    Raises:
        EngineError: the engine cannot be made, or fails on a batch.
    """
    engine = _made(request)
    batches = list(_grid(request)) * _REPEATS
    for_fit = len(batches)
    batches += _drawn(request)
    measured: dict[int, tuple[MeasuredBatch, PeakSource]] = {}
    ran: set[tuple[int, ...]] = set()
    # In any order: what drifts meanwhile is then the same to those of the fit and to the others.
    for number in np.random.default_rng(_SEED).permutation(len(batches)).tolist():
        lengths = batches[number]
        if tuple(lengths) not in ran:
            ran.add(tuple(lengths))
            _run(engine, lengths, request)
        measured[number] = _run(engine, lengths, request)
    found = [measured[number][0] for number in range(len(batches))]
    return Calibration(
        engine=engine.name,
        computes_padding=engine.computes_padding,
        source=measured[0][1],
        grid=found[:for_fit],
        held_out=found[for_fit:],
    )


def _made(request: CalibrationRequest) -> Engine:
    module, _, function = request.make.partition(":")
    maker: Any = getattr(importlib.import_module(module), function)
    engine: Engine = maker(**request.arguments)
    return engine


def _grid(request: CalibrationRequest) -> Iterator[list[int]]:
    """Rows of one length; an engine that leaves padding out costs the same on mixed ones."""
    longest = sorted({*(each for each in _TOKENS if each < request.max_tokens), request.max_tokens})
    for rows, tokens in itertools.product(_ROWS, longest):
        if _FEWEST_TOKENS <= rows * tokens <= request.max_batch_tokens:
            yield [tokens] * rows


def _drawn(request: CalibrationRequest) -> Iterator[list[int]]:
    """Rows of many lengths, as served text has them."""
    random = np.random.default_rng(_SEED)
    for _ in range(request.held_out):
        middle = random.uniform(np.log(8), np.log(request.max_tokens))
        budget = random.uniform(2 * _FEWEST_TOKENS, request.max_batch_tokens)
        lengths: list[int] = []
        while len(lengths) < _ROWS[-1]:
            length = min(max(round(random.lognormal(middle, 0.1)), 3), request.max_tokens)
            if lengths and (len(lengths) + 1) * max(*lengths, length) > budget:
                break
            lengths.append(length)
        if len(lengths) * max(lengths) >= _FEWEST_TOKENS:
            yield lengths


def _run(
    engine: Engine, lengths: Sequence[int], request: CalibrationRequest
) -> tuple[MeasuredBatch, PeakSource]:
    shape = shape_of(lengths, engine.length_buckets)
    input_ids, mask = pad([[1] * length for length in lengths], 0, shape.longest)
    on_cpu = request.device == "cpu"
    forget = getattr(engine, "forget", None)
    if forget is not None:
        forget()  # what was kept of the last batch would seem to cost this one nothing
    clock = time.process_time if on_cpu else time.perf_counter
    seconds = 0.0

    def timed() -> None:
        nonlocal seconds
        started = clock()
        engine.run(input_ids, mask)
        seconds = clock() - started

    peak, source = (host_peak if on_cpu else gpu_peak)(timed)
    return MeasuredBatch(**shape._asdict(), bytes=peak, seconds=seconds), source


def main() -> None:
    """Measure what a file asks for."""
    parser = argparse.ArgumentParser(prog="python -m serving.batching.calibrate")
    parser.add_argument("request", type=Path)
    parser.add_argument("answer", type=Path)
    options = parser.parse_args()
    request = CalibrationRequest.model_validate_json(options.request.read_bytes())
    options.answer.write_text(measure(request).model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
