"""How fast an engine is by batch size and length, and what it holds: rows, a table and a plot."""

import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict

from data.errors import EngineError
from serving.engines.plan_folder import PlanPrecision, Profile
from serving.engines.protocol import Engine
from training.evaluation.plots import COLOURS, STYLE

WARM_UPS: Final = 3
_MIB: Final = 2**20
_SEED: Final = 0
_LEAST_GAIN: Final = 1.0


class SweptShape(BaseModel):
    """An engine on one shape of batch, every token real.

    Attributes:
        precision: of the engine.
        batch: rows.
        tokens: of each row.
        latency_ms: median, from host to host.
        p99_ms: 99th percentile.
        tokens_per_s: at the median.
        held_mib: of the device, for this shape, weights left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    precision: str
    batch: int
    tokens: int
    latency_ms: float
    p99_ms: float
    tokens_per_s: float
    held_mib: float


def sweep_shapes(profiles: Sequence[Profile]) -> list[tuple[int, int]]:
    """(rows, tokens) to measure: of every length, rows in powers of two up to the largest batch."""
    most: dict[int, int] = {}
    for profile in profiles:
        most[profile.tokens] = max(most.get(profile.tokens, 0), profile.batch)
    return [
        (rows, tokens)
        for tokens, largest in sorted(most.items())
        for rows in sorted({*(2**power for power in range(largest.bit_length())), largest})
    ]


def sweep_engines(
    engines: Mapping[PlanPrecision, Engine],
    shapes: Sequence[tuple[int, int]],
    *,
    held_bytes: Callable[[PlanPrecision, int, int], int],
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
) -> list[SweptShape]:
    """Measure engines on the same shapes, turn about, so that a busy machine slows all alike.

    Args:
        engines: by precision.
        shapes: (rows, tokens) each.
        held_bytes: what an engine holds on its device for a shape.
        repeats: how often each shape is run.
        clock: seconds.

    Raises:
        EngineError: an engine failed, or answered with NaN.
    """
    random = np.random.default_rng(_SEED)
    swept = []
    for rows, tokens in shapes:
        # Small ids are in every vocabulary; what they mean does not matter to the time.
        ids = random.integers(5, 20, size=(rows, tokens), dtype=np.int64)
        mask = np.ones_like(ids)
        times: dict[PlanPrecision, list[float]] = {name: [] for name in engines}
        for turn in range(WARM_UPS + repeats):
            for name, engine in engines.items():
                begun = clock()
                outputs = engine.run(ids, mask)
                taken = clock() - begun
                if turn >= WARM_UPS:
                    times[name].append(taken)
                elif not all(np.isfinite(values).all() for values in outputs.values()):
                    raise EngineError(
                        f"the {name!r} engine answers {rows} × {tokens} tokens with NaN or "
                        "infinite values; export its graph with layer norms in fp32"
                    )
        for name, seconds in times.items():
            median = max(float(np.median(seconds)), 1e-9)
            swept.append(
                SweptShape(
                    precision=name,
                    batch=rows,
                    tokens=tokens,
                    latency_ms=1e3 * median,
                    p99_ms=1e3 * float(np.percentile(seconds, 99)),
                    tokens_per_s=rows * tokens / median,
                    held_mib=held_bytes(name, rows, tokens) / _MIB,
                )
            )
    return swept


class PrecisionChoice(NamedTuple):
    """Which precision serves, and why, in figures."""

    precision: PlanPrecision
    reason: str


def choose_precision(swept: Sequence[SweptShape]) -> PrecisionChoice:
    """INT8 only where it is faster than FP16: on the full batches of all lengths, together.

    Args:
        swept: of one precision or both, on the same shapes.

    Raises:
        EngineError: there are no rows.
    """
    speeds = {
        precision: {(row.batch, row.tokens): row for row in swept if row.precision == precision}
        for precision in ("fp16", "int8")
    }
    if not speeds["fp16"] or not speeds["int8"]:
        if not swept:
            raise EngineError("no engine was measured; build one first")
        return PrecisionChoice(
            "int8" if speeds["int8"] else "fp16", "it is the only one that may serve"
        )
    shared = speeds["fp16"].keys() & speeds["int8"].keys()
    full = {tokens: max(rows for rows, own in shared if own == tokens) for _, tokens in shared}
    gains = {
        (rows, tokens): speeds["int8"][rows, tokens].tokens_per_s
        / speeds["fp16"][rows, tokens].tokens_per_s
        for tokens, rows in full.items()
    }
    gain = math.exp(sum(map(math.log, gains.values())) / len(gains))
    worst = min(gains, key=lambda shape: gains[shape])
    told = (
        f"INT8 does {gain:.2f} × the tokens per second of FP16 (geometric mean of full batches; "
        f"{gains[worst]:.2f} × at {worst[0]} × {worst[1]} tokens)"
    )
    return PrecisionChoice("int8" if gain > _LEAST_GAIN else "fp16", told)


def sweep_markdown(swept: Sequence[SweptShape]) -> str:
    """A table for people: one row a shape and precision."""
    head = ("precision", "batch", "tokens", "latency ms", "p99 ms", "tokens/s", "held MiB")
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for row in swept:
        cells = (
            row.precision,
            str(row.batch),
            str(row.tokens),
            f"{row.latency_ms:.3f}",
            f"{row.p99_ms:.3f}",
            f"{row.tokens_per_s:,.0f}",
            f"{row.held_mib:.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sweep_svg(swept: Sequence[SweptShape]) -> str:
    """Latency, throughput and memory against batch size; a colour a length, dashes for INT8."""
    panels = (
        ("latency_ms", "latency, ms"),
        ("tokens_per_s", "tokens per second"),
        ("held_mib", "held, MiB"),
    )
    lengths = sorted({row.tokens for row in swept})
    style: Any = STYLE
    with rc_context(style):
        figure = Figure(figsize=(10.5, 3.2))
        for axes, (field, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for number, tokens in enumerate(lengths):
                for precision in sorted({row.precision for row in swept}):
                    own = [
                        (row.batch, getattr(row, field))
                        for row in swept
                        if (row.precision, row.tokens) == (precision, tokens)
                    ]
                    axes.plot(
                        *zip(*sorted(own), strict=True) if own else ([], []),
                        color=COLOURS[number % len(COLOURS)],
                        linestyle="--" if precision == "int8" else "-",
                        marker="o",
                        markersize=3,
                        label=f"{tokens} tokens, {precision}",
                    )
            axes.set_xscale("log", base=2)
            axes.set_xlabel("batch")
            axes.set_ylabel(label)
        figure.axes[-1].legend(
            fontsize=7, frameon=False, bbox_to_anchor=(1.02, 1), loc="upper left"
        )
        figure.subplots_adjust(wspace=0.4)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
