"""Where the unpadded engines' time goes, beside plain torch and the fastest product of this CPU.

An ELECTRA-base of random weights reads windows of lognormal lengths. Engines take turns, on one
thread, and only this process's CPU time counts; a busy neighbour still costs cache and clock, so
compare the ratios of one run and no run with another:

    python -m bench.unpadded_profile --windows 256 --rounds 3
"""

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import ElectraConfig, ElectraModel

from bench.corpus import draw_windows
from bench.engines import operations_per_token
from bench.source_models import SHAPE
from serving.batching.planner import TOKEN_BUDGET, plan_batches
from serving.engines.protocol import Engine
from serving.engines.pytorch import PytorchEngine
from serving.engines.unpadded import Precision, UnpaddedEngine
from serving.sentence_encoder import SentenceEncoder
from serving.windows import pad

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
HIDDEN, INNER = SHAPE["hidden_size"], SHAPE["intermediate_size"]
PARTS = {
    "onednn::qlinear_pointwise": "products",
    "mkldnn::_linear_pointwise": "products",
    "aten::bmm": "attention",
    "aten::_softmax": "attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::copy_": "copies",
    "aten::native_layer_norm": "LayerNorm",
    "## Call CompiledFxGraph None ##": "compiled epilogues",
}
Batches = Sequence[Sequence[int]]


def make_model() -> SentenceEncoder:
    """KR-ELECTRA's shape, eager attention."""
    torch.manual_seed(0)
    return SentenceEncoder(ElectraModel(ElectraConfig(**SHAPE, attn_implementation="eager"))).eval()


def tokens_per_second(engine: Engine, windows: list[list[int]], batches: Batches) -> float:
    """Real tokens per CPU-second."""
    start = time.process_time()
    for batch in batches:
        engine.run(*pad([windows[row] for row in batch], 0))
    spent = time.process_time() - start
    return sum(len(windows[row]) for batch in batches for row in batch) / spent


def best_product() -> float:
    """Operations per CPU-second of the fastest INT8 product of this shape of model."""
    codes = torch.randint(0, 255, (TOKEN_BUDGET, INNER), dtype=torch.uint8)
    weight = torch.randint(-127, 127, (HIDDEN, INNER), dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [TOKEN_BUDGET, INNER])
    scales, zeros = torch.ones(HIDDEN), torch.zeros(HIDDEN, dtype=torch.int64)
    multiply: Callable[[], object] = lambda: torch.ops.onednn.qlinear_pointwise(  # noqa: E731
        codes, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
    )
    best = float("inf")
    for _ in range(40):
        start = time.process_time()
        multiply()
        best = min(best, time.process_time() - start)
    return 2 * TOKEN_BUDGET * INNER * HIDDEN / best


def shares(engine: Engine, windows: list[list[int]], batches: Batches) -> dict[str, float]:
    """Each part's share of the time that torch spends."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        tokens_per_second(engine, windows, batches)
    parts: Counter[str] = Counter()
    for event in seen.key_averages():
        parts[PARTS.get(event.key, "rest")] += event.self_cpu_time_total
    return {part: spent / parts.total() for part, spent in parts.most_common()}


def main() -> None:
    """Measure, and print one line an engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=TOKEN_BUDGET, help="of one batch, at most")
    asked = parser.parse_args()
    windows = draw_windows(asked.windows, SHAPE["vocab_size"])
    model = make_model()
    arrival = [range(first, first + 32) for first in range(0, len(windows) - 31, 32)]
    planned = [rows.tolist() for rows in plan_batches([len(w) for w in windows], asked.tokens)]
    plans: dict[str, tuple[Engine, Batches]] = {
        "naive": (PytorchEngine(model), arrival),
        **{name: (UnpaddedEngine(model, precision=name), planned) for name in PRECISIONS},
    }
    padded = sum(len(b) * max(len(windows[row]) for row in b) for b in arrival)
    real = sum(len(windows[row]) for batch in arrival for row in batch)
    print(f"{real / sum(map(len, arrival)):.1f} tokens a window; naive padding {padded / real:.2f}")
    for engine, batches in plans.values():
        tokens_per_second(engine, windows, batches[:2])
    speeds: dict[str, list[float]] = {name: [] for name in plans}
    peaks = []
    for _ in range(asked.rounds):
        peaks.append(best_product())
        for name, (engine, batches) in plans.items():
            speeds[name].append(tokens_per_second(engine, windows, batches))
    peak = max(peaks)
    for name, (engine, batches) in plans.items():
        speed = statistics.median(speeds[name])
        ratio = speed / statistics.median(speeds["naive"])
        share = speed * operations_per_token() / peak
        parts = {} if name == "naive" else shares(engine, windows, batches[::3])
        print(
            f"{name:6s} {speed:6.0f} tokens/s, {ratio:5.2f} x, "
            f"{share:5.1%} of the best INT8 product ({peak / 1e9:.0f} GOP/s)",
            {part: f"{spent:.1%}" for part, spent in parts.items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
