"""Engines side by side on one model: speed, latency, memory, and how far their answers are apart.

Batches are run in turn, each by every engine, and of those on a CPU process CPU time is counted: so
a busy machine slows all alike, and ratios hold. One on a GPU has the wall clock, and the GPU to
itself. To be compared with it, one on a CPU is taken to run on every core at once, as in a gateway
whose workers times engine threads are the number of cores: the most that it can do.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np

from data.errors import EngineError, MatjipError
from data.sources.synthetic import generate
from serving.batching.peak_memory import gpu_peak, host_peak
from serving.batching.planner import TOKEN_BUDGET, plan_batches, run_in_batches
from serving.engines.choice import ENGINES
from serving.engines.protocol import Engine, Floats, Outputs, TokenIds
from serving.engines.tuned import MeasuredEngine
from serving.label_likeness import label_likeness
from serving.likeness import NEIGHBOURS, cosines, neighbour_overlap
from serving.model_folder import ModelSpec
from serving.text_model import TextModel
from serving.windows import pad

LEAST_WINDOWS: Final = 2 * NEIGHBOURS
_MEAN_TOKENS, _LOG_SPREAD, _FEWEST_TOKENS, _MOST_TOKENS = 39.0, 0.7, 4, 128
_ALONE: Final = 32
FAILURES: Final = (
    MatjipError, RuntimeError, OSError, ValueError, TypeError, LookupError, ImportError, MemoryError
)  # fmt: skip
"""One engine's failure, by our own rules or a library's, leaves the others to be measured."""
_MIB: Final = 2**20
Make = Callable[[str], Engine]
Progress = Callable[[str, int, int], None]
Batch = tuple[TokenIds, TokenIds]


@dataclass
class _Run:
    """One engine while it is measured.

    Attributes:
        clock: its seconds, of one core or of the GPU.
        side_by_side: how many such clocks the machine has: its cores, or 1 for the GPU.
    """

    engine: Engine
    clock: Callable[[], float]
    side_by_side: int
    outputs: Outputs
    alone_cos_min: float
    peak_bytes: int
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)


def sample_windows(model: TextModel[object], count: int, *, seed: int = 0) -> list[list[int]]:
    """Windows of made-up reviews whose lengths are lognormal: mean about 39 tokens, at most 128.

    Args:
        model: whose tokenizer and special tokens are used.
        count: how many.
        seed: of lengths and reviews.

    Raises:
        EngineError: they are too few to measure on.
    """
    _check_count(count)
    rng = Random(seed)  # noqa: S311  # a sample, no secret
    location = np.log(_MEAN_TOKENS) - _LOG_SPREAD**2 / 2
    windows = [
        list(w) for w in model.windows([r.review.text for r in generate(count, seed=seed)]).ids
    ]
    most = min(_MOST_TOKENS, max(map(len, windows)))
    inner = [token for window in windows for token in window[1:-1]]
    opening, closing = windows[0][0], windows[0][-1]
    sample = []
    start = 0
    for _ in range(count):
        drawn = round(rng.lognormvariate(location, _LOG_SPREAD))
        length = min(max(drawn, _FEWEST_TOKENS), most)
        middle = [inner[(start + step) % len(inner)] for step in range(length - 2)]
        sample.append([opening, *middle, closing])
        start += length - 2
    return sample


def measure_engines(
    names: Sequence[str],
    make: Make,
    windows: Sequence[Sequence[int]],
    pad_id: int,
    *,
    reference: str | None = None,
    spec: ModelSpec | None = None,
    rounds: int = 2,
    progress: Progress = lambda what, done, total: None,
) -> list[MeasuredEngine]:
    """Measure engines on the same windows, the answers against the reference's.

    Args:
        names: of engines, the most exact first.
        make: an engine from its name.
        windows: token ids each.
        pad_id: id of the padding token.
        reference: one of them, whose answers the others are compared with; None takes the first
            that works.
        spec: of a classifier, whose labels and probabilities are compared as well.
        rounds: how often each batch is run by each engine.
        progress: told what is done, how many steps of how many.

    Returns:
        One row an engine, in their order; one that failed has its error.

    Raises:
        EngineError: there are too few windows to compare neighbours, or the reference fails.
    """
    _check_count(len(windows))
    runs: dict[str, _Run] = {}
    errors: dict[str, str] = {}
    lengths = [len(window) for window in windows]
    plan = [
        pad([windows[row] for row in rows], pad_id) for rows in plan_batches(lengths, TOKEN_BUDGET)
    ]
    total = len(names) + rounds * len(plan)
    for done, name in enumerate(names):
        progress(f"load {name}", done, total)
        try:
            runs[name] = _start(name, make, windows, pad_id)
        except FAILURES as error:
            errors[name] = f"{type(error).__name__}: {error}"
    for done, (batch, turn) in enumerate(_turns(plan, rounds)):
        progress(f"round {turn + 1}", len(names) + done, total)
        for name in list(runs):
            try:
                _time(runs[name], batch)
            except FAILURES as error:
                errors[name] = f"{type(error).__name__}: {error}"
                del runs[name]
    progress("done", total, total)
    tokens = rounds * sum(lengths)
    if reference is not None and reference not in runs:
        raise EngineError(
            f"the engine {reference!r}, whose answers are what others are compared with, cannot "
            f"run: {errors.get(reference, 'it cannot be made here')}; mend that first"
        )
    exact = runs[reference or next(iter(runs))].outputs if runs else {}
    return [
        _row(name, runs[name], exact, tokens, spec)
        if name in runs
        else MeasuredEngine(engine=name, error=errors[name])
        for name in names
    ]


def _check_count(windows: int) -> None:
    if windows < LEAST_WINDOWS:
        raise EngineError(
            f"{windows!r} windows are too few to measure on; give at least {LEAST_WINDOWS}"
        )


def _start(name: str, make: Make, windows: Sequence[Sequence[int]], pad_id: int) -> _Run:
    """Make an engine, warm it up, and keep its answers."""
    on_gpu = ENGINES[name].device == "gpu"
    made: list[tuple[Engine, Outputs]] = []

    def first_answers() -> None:
        engine = make(name)
        outputs = run_in_batches(engine, windows, pad_id, token_budget=TOKEN_BUDGET)
        made.append((engine, outputs))

    peak, _ = (gpu_peak if on_gpu else host_peak)(first_answers)
    ((engine, outputs),) = made
    flat = _flat(outputs)
    if not np.isfinite(flat).all():
        raise EngineError("it answers with NaN or infinite values")
    few = windows[:_ALONE]
    alone = _flat(run_in_batches(engine, few, pad_id, token_budget=1))
    run = _Run(
        engine=engine,
        clock=gpu_clock if on_gpu else time.process_time,
        side_by_side=1 if on_gpu else len(os.sched_getaffinity(0)),
        outputs=outputs,
        alone_cos_min=float(cosines(flat[: len(few)], alone).min()),
        peak_bytes=peak,
    )
    if on_gpu:  # what is recorded or chosen when a shape comes again is made once
        run_in_batches(engine, windows, pad_id, token_budget=TOKEN_BUDGET)
    for window in few:
        begun = time.perf_counter()
        engine.run(*pad([window], pad_id))
        run.latencies_s.append(time.perf_counter() - begun)
    return run


def gpu_clock() -> float:
    """Seconds of the wall clock, once the GPU has done all that was asked of it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def _turns(plan: Sequence[Batch], rounds: int) -> Iterator[tuple[Batch, int]]:
    for turn in range(rounds):
        for batch in plan:
            yield batch, turn


def _time(run: _Run, batch: Batch) -> None:
    begun = run.clock()
    run.engine.run(*batch)
    run.seconds += run.clock() - begun


def _row(
    name: str, run: _Run, reference: Outputs, tokens: int, spec: ModelSpec | None
) -> MeasuredEngine:
    exact, flat = _flat(reference), _flat(run.outputs)
    alike = cosines(exact, flat)
    labels = label_likeness(reference, run.outputs, spec) if spec else None
    return MeasuredEngine(
        engine=name,
        name=run.engine.name,
        tokens_per_s=run.side_by_side * tokens / max(run.seconds, 1e-9),
        latency_ms=1000 * float(np.median(run.latencies_s)),
        peak_mib=run.peak_bytes / _MIB,
        cos_mean=float(alike.mean()),
        cos_p1=float(np.percentile(alike, 1)),
        cos_min=float(alike.min()),
        top10_overlap=neighbour_overlap(exact, flat),
        label_agreement=labels.label_agreement if labels else None,
        probability_shift=labels.probability_shift if labels else None,
        alone_cos_min=run.alone_cos_min,
        batch_invariant=run.engine.batch_invariant,
    )


def _flat(outputs: Outputs) -> Floats:
    """All outputs of a window side by side, (windows, values)."""
    return np.concatenate([values.reshape(len(values), -1) for values in outputs.values()], axis=1)
