"""What the GPU at hand can do at most, measured: matrix products by type, and memory's bandwidth.

A batch's roofline is the longer of two times: its operations at the best measured product of their
type, and the bytes that the products must read and write at the measured bandwidth. The share of
the roofline that an engine reaches is that time over the one it took.
"""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, Final

import torch
from torch import Tensor

from bench.gpu_model import Sizes

TYPES: Final[dict[str, torch.dtype]] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
_WARM_UPS: Final = 3


def timed_s(call: Callable[[], object], device: torch.device, *, repeats: int) -> list[float]:
    """Seconds of each call; on a GPU by events, without waiting between."""
    for _ in range(_WARM_UPS):
        call()
    if device.type == "cuda":
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize(device)
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks)]
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return spent


def _product(
    dtype: torch.dtype, shape: Sequence[int], device: torch.device
) -> Callable[[], Tensor]:
    rows, inner, columns = shape
    if dtype == torch.int8:
        left = torch.randint(-127, 127, (rows, inner), dtype=dtype, device=device)
        right = torch.randint(-127, 127, (columns, inner), dtype=dtype, device=device).t()
        return lambda: torch._int_mm(left, right)  # noqa: SLF001  # torch's only name for it
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(columns, inner, device=device).to(dtype).t()
    return lambda: left @ right


def measure_peaks(sizes: Sizes, device: torch.device, *, toy: bool) -> dict[str, Any]:
    """Best TFLOP/s by type over a large square and the encoder's own shapes, and GB/s of a copy.

    A copy's bytes are counted read and written. float32 is measured as it is, without TF32.
    """
    rows, square, repeats = (256, 256, 3) if toy else (16_384, 8_192, 20)
    hidden, inner = sizes.hidden, sizes.inner
    shapes = [
        (square, square, square),
        (rows, hidden, 3 * hidden),
        (rows, hidden, inner),
        (rows, inner, hidden),
    ]
    found: dict[str, dict[str, float]] = {}
    failures: dict[str, str] = {}
    for name, dtype in TYPES.items():
        for shape in shapes:
            few = 3 if name == "fp32" else repeats  # without tensor cores it takes long
            try:
                seconds = timed_s(_product(dtype, shape, device), device, repeats=few)
            except RuntimeError as error:
                failures[f"{name} {shape}"] = str(error).splitlines()[0]
                continue
            rate = 2.0 * shape[0] * shape[1] * shape[2] / median(seconds) / 1e12
            found.setdefault(name, {})["x".join(map(str, shape))] = rate
    source = torch.zeros(2**22 if toy else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = median(timed_s(lambda: target.copy_(source), device, repeats=repeats))
    return {
        "tflops": {name: max(rates.values()) for name, rates in found.items()},
        "tflops_by_shape": found,
        "gb_per_s": 2 * source.nbytes / copied / 1e9,
        "failures": failures,
    }


def operations(sizes: Sizes, lengths: Sequence[int]) -> float:
    """Of a batch's matrix products: those with weights, and attention's own two."""
    tokens, squares = sum(lengths), sum(length * length for length in lengths)
    weights = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.inner
    return 2.0 * sizes.layers * (tokens * weights + 2 * squares * sizes.hidden)


def least_bytes(sizes: Sizes, lengths: Sequence[int], item_bytes: int) -> float:
    """That a batch's products read and write, everything between them fused into them."""
    weights = 4 * sizes.hidden**2 + 2 * sizes.hidden * sizes.inner
    rows = 12 * sizes.hidden + 2 * sizes.inner
    return float(sizes.layers * item_bytes * (weights + sum(lengths) * rows))


def roofline_s(
    sizes: Sizes, lengths: Sequence[int], precision: str, peaks: dict[str, Any]
) -> float:
    """Seconds that a batch takes at least."""
    item_bytes = TYPES[precision].itemsize
    by_products = operations(sizes, lengths) / (peaks["tflops"][precision] * 1e12)
    by_memory = least_bytes(sizes, lengths, item_bytes) / (peaks["gb_per_s"] * 1e9)
    return max(by_products, by_memory)
