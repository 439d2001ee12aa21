"""Rows of a training measurement: what was counted, its share of the device's peak, as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from bench.random_7b import Base

Batching = Literal["padded", "packed"]
PEAKS: Final = {
    "GH200": 989.4,
    "H200": 989.4,
    "H100 NVL": 835.5,
    "H100 PCIE": 756.5,
    "H100": 989.4,
    "B200": 2250.0,
    "A100": 312.0,
    "A10G": 70.0,
    "A10": 125.0,
    "L40S": 362.05,
    "L40": 181.05,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Dense bfloat16 TFLOP/s by device name, the vendor's; a name within another stands after it."""


HEAD: Final = (
    "base",
    "batches",
    "real tokens/s",
    "padding",
    "ms a step",
    "model GiB",
    "peak GiB",
    "of peak, 6N",
    "of peak, 4N",
)
MEANING: Final = (
    "real tokens count, padding for nothing. 6N operations a token (N weights in matrices, the "
    "head but not the embedding), as if all were trained, is what others report; 4N is what a "
    "frozen base needs, since its own gradients are never computed. Both plus 6 x layers x width x "
    "length squared an example, for causal attention. What is computed again counts for nothing."
)


@dataclass(frozen=True)
class Result:
    """One row.

    Attributes:
        tokens: real ones of all timed steps; ``positions`` counts padding too.
        flops_6n: that the timed steps are worth if every weight counted as trained.
        flops_4n: that they are worth with the base frozen, as it is.
        model_bytes: of base and adapter, before the first step.
        peak_bytes: the most that was allocated at once.
        failed: why there are no figures.
    """

    base: Base
    batching: Batching
    tokens: int = 0
    positions: int = 0
    steps_ms: tuple[float, ...] = ()
    flops_6n: float = 0.0
    flops_4n: float = 0.0
    model_bytes: int = 0
    peak_bytes: int = 0
    loss: float = 0.0
    failed: str | None = None

    @property
    def seconds(self) -> float:
        """Of all timed steps."""
        return sum(self.steps_ms) / 1e3


def peak_tflops(name: str) -> float | None:
    """The vendor's dense bfloat16 rate of a device; None for one that is not in the table."""
    found = (peak for key, peak in PEAKS.items() if re.search(rf"\b{key}\b", name, re.IGNORECASE))
    return next(found, None)


def table(rows: Sequence[Result], peak: float | None) -> str:
    """The rows as Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for row in rows:
        if row.failed is not None:
            empty = ["–"] * (len(HEAD) - 3)
            lines.append(f"| {' | '.join([row.base, row.batching, row.failed, *empty])} |")
            continue
        shares = [
            "–" if peak is None else f"{flops / row.seconds / (peak * 1e12):.1%}"
            for flops in (row.flops_6n, row.flops_4n)
        ]
        sizes = [f"{size / 2**30:.1f}" for size in (row.model_bytes, row.peak_bytes)]
        cells = [row.base, row.batching, f"{row.tokens / row.seconds:,.0f}"]
        cells += [f"{1 - row.tokens / row.positions:.1%}", f"{median(row.steps_ms):,.1f}"]
        lines.append(f"| {' | '.join([*cells, *sizes, *shares])} |")
    return "\n".join(lines)
