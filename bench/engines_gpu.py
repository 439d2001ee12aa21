"""Encoder engines on an NVIDIA GPU: real tokens/s against what its products and memory allow.

    python -m bench.engines_gpu [--out FILE.json]

A random ELECTRA-base-shaped encoder in fp16 and bf16, padded SDPA, plain and compiled, over the
same windows in arrival order and sorted within a budget of tokens. Without a GPU it says so and
ends with status 2; ``--toy`` runs all of it on a CPU with a toy's sizes, to see that it runs.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from transformers import ElectraConfig, ElectraModel

from serving.batching.planner import plan_batches
from serving.windows import pad

REFUSED: Final = 2
LONGEST: Final = 128
BASE: Final = {"hidden_size": 768, "layers": 12, "heads": 12, "windows": 2048, "budget": 16384}
TOY: Final = {"hidden_size": 32, "layers": 1, "heads": 2, "windows": 24, "budget": 512}
Batch = tuple[torch.Tensor, torch.Tensor]


def refusal() -> str | None:
    """Why this machine cannot be measured on; None if it can."""
    if torch.cuda.is_available():
        return None
    return (
        f"no NVIDIA GPU: torch {torch.__version__} sees none; run it where there is one, with "
        "torch's CUDA wheel, or pass --toy to see that the code runs"
    )


def model_of(sizes: dict[str, int], device: torch.device, dtype: torch.dtype) -> ElectraModel:
    """Random weights; speed does not depend on them."""
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=1000,
        embedding_size=sizes["hidden_size"],
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=4 * sizes["hidden_size"],
    )
    return ElectraModel(config).to(device, dtype).eval()


def batches_of(sizes: dict[str, int], plan: str, device: torch.device) -> list[Batch]:
    """Windows of lognormal lengths, mean about 39, by 32 as they came or sorted in a budget."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.5, 0.55, sizes["windows"]), 3, LONGEST).astype(int)
    windows = [list(rng.integers(5, 1000, length)) for length in lengths]
    rows = (
        [np.arange(start, min(start + 32, len(windows))) for start in range(0, len(windows), 32)]
        if plan == "by 32"
        else list(plan_batches([len(window) for window in windows], sizes["budget"]))
    )
    padded = [pad([windows[row] for row in each], 0) for each in rows]
    return [
        (torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))
        for ids, mask in padded
    ]


def seconds_of(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median wall seconds of work that the device has finished, after one warm-up."""
    spent = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - started)
    return median(spent[1:])


def product_tflops(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """What a large product reaches here: the roof."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, device, 10) / 1e12


def measure(
    sizes: dict[str, int], dtype: torch.dtype, plan: str, device: torch.device, *, compiled: bool
) -> dict[str, Any]:
    """One row: real tokens/s, padding, share of the roof, memory."""
    model = model_of(sizes, device, dtype)
    run: Any = torch.compile(model, dynamic=True) if compiled else model
    batches = batches_of(sizes, plan, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def work() -> None:
        with torch.inference_mode():
            for ids, mask in batches:
                run(input_ids=ids, attention_mask=mask)

    seconds = seconds_of(work, device, 5)
    real = sum(int(mask.sum()) for _, mask in batches)
    padded = sum(ids.numel() for ids, _ in batches)
    hidden, layers = sizes["hidden_size"], sizes["layers"]
    flops = 2.0 * real * layers * 12 * hidden**2
    roof = product_tflops(device, dtype, 8192 if device.type == "cuda" else 128)
    return {
        "engine": f"torch-{str(dtype).removeprefix('torch.')}{', compiled' if compiled else ''}",
        "plan": plan,
        "tokens_per_s": real / seconds,
        "padding": padded / real,
        "roof_tflops": roof,
        "roof_share": flops / seconds / 1e12 / roof,
        "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines_gpu")
    parser.add_argument("--out", type=Path, default=Path("var/bench/engines_gpu.json"))
    parser.add_argument("--toy", action="store_true", help="a toy's sizes, on a CPU")
    given = parser.parse_args(arguments)
    if not given.toy and (reason := refusal()) is not None:
        print(reason, file=sys.stderr)
        return REFUSED
    device = torch.device("cpu" if given.toy else "cuda")
    sizes = TOY if given.toy else BASE
    rows = []
    for dtype in (torch.bfloat16,) if given.toy else (torch.float16, torch.bfloat16):
        for compiled in (False,) if given.toy else (False, True):
            for plan in ("by 32", "sorted"):
                rows.append(measure(sizes, dtype, plan, device, compiled=compiled))
                print(json.dumps(rows[-1]), flush=True)
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, a toy"
    given.out.parent.mkdir(parents=True, exist_ok=True)
    said = {"device": device_name, "torch": torch.__version__, "sizes": sizes, "rows": rows}
    given.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
