"""The machine's measured ceiling: matrix products alone, of an encoder's shapes, on one core."""

import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional

SHAPES: Final = ((1024, 768, 3072), (1024, 3072, 768), (1024, 768, 2304))
"""(tokens, in, out): feed-forward up and down, and fused query, key and value."""
_ROUNDS: Final = 12


def _float_product(dtype: torch.dtype, rows: int, inner: int, columns: int) -> Callable[[], Any]:
    inputs, weight = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    return lambda: functional.linear(inputs, weight)


def _onednn_int8(rows: int, inner: int, columns: int) -> Callable[[], Any]:
    inputs = torch.randint(0, 255, (rows, inner), dtype=torch.uint8)
    weight = torch.randint(-127, 127, (columns, inner), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [rows, inner])
    scales, zeros = torch.full((columns,), 0.01), torch.zeros(columns, dtype=torch.int64)
    bias = torch.zeros(columns)
    return lambda: torch.ops.onednn.qlinear_pointwise(
        inputs, 0.02, 128, packed, scales, zeros, bias, 1.0, 0, torch.bfloat16, "none", [], ""
    )


def _int_mm(rows: int, inner: int, columns: int) -> Callable[[], Any]:
    inputs = torch.randint(-127, 127, (rows, inner), dtype=torch.int8)
    weight = torch.randint(-127, 127, (columns, inner), dtype=torch.int8).t()
    return lambda: torch._int_mm(inputs, weight)  # noqa: SLF001  # torch's only name for it


def _kernels() -> dict[str, Callable[[int, int, int], Callable[[], Any]]]:
    return {
        "fp32 linear": lambda *shape: _float_product(torch.float32, *shape),
        "bf16 linear": lambda *shape: _float_product(torch.bfloat16, *shape),
        "int8 onednn": _onednn_int8,
        "int8 int_mm": _int_mm,
    }


def measure_gemm(*, rounds: int = _ROUNDS) -> dict[str, Any]:
    """Best GOP/s of each kernel over the shapes, interleaved, in processor time.

    Returns:
        ``kernels`` with each one's best, and ``peaks`` by precision, the best of its kernels.
    """
    torch.set_num_threads(1)
    best: dict[str, float] = {}
    for shape in SHAPES:
        products = {name: make(*shape) for name, make in _kernels().items()}
        for run in products.values():
            run()
        operations = 2.0 * shape[0] * shape[1] * shape[2]
        for _ in range(rounds):
            for name, run in products.items():
                began = time.process_time()
                run()
                speed = operations / (time.process_time() - began) / 1e9
                best[name] = max(best.get(name, 0.0), speed)
    peaks = {
        precision: max(speed for name, speed in best.items() if name.startswith(precision))
        for precision in ("fp32", "bf16", "int8")
    }
    return {"kernels": best, "peaks": peaks, "shapes": [list(shape) for shape in SHAPES]}
