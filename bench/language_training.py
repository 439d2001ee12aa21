"""Training an adapter over a 7B model on an NVIDIA GPU: tokens/s, peak memory, share of the peak.

    python -m bench.language_training [--bases bf16 nf4] [--out FILE.md]

The model is random, made on the GPU from its sizes: no weights, tokenizer or network. Four rows:
bfloat16 LoRA and NF4 QLoRA, padded and packed; steps are timed with CUDA events after a warm-up.
Needs torch for CUDA, transformers and peft, and bitsandbytes for NF4; nothing else of matjip's, so
that it runs on a machine that has those alone. Without a GPU it says so and ends with status 2;
``--toy`` runs all of it on a CPU with a toy's sizes, to see that it runs.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from math import isfinite
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import torch

from bench.language_batches import (
    QUANTILES,
    Batch,
    draw_lengths,
    packed_batches,
    padded_batches,
    useful_flops,
)
from bench.language_report import MEANING, Batching, Result, peak_tflops, table
from bench.random_7b import QWEN_7B, TOY, Base, build, matrix_weights

REFUSED: Final = 2
FEWEST_STEPS: Final = 20
LONGEST: Final = QUANTILES[-1][1]
BF16_CAPABILITY: Final = (8, 0)


def refusal() -> str | None:
    """Why this machine cannot be measured on; None if it can."""
    if not torch.cuda.is_available():
        return (
            f"no NVIDIA GPU: torch {torch.__version__} sees none; run it where there is one, with "
            "torch's CUDA wheel, or pass --toy to see that the code runs"
        )
    capability = torch.cuda.get_device_capability()
    if capability < BF16_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name()!r} has compute capability {capability!r}; bfloat16 "
            f"needs {BF16_CAPABILITY!r}: take an Ampere GPU or a newer one"
        )
    return None


def stepper(model: Any, device: torch.device) -> Callable[[Batch], torch.Tensor]:
    """One optimiser step on a batch that lies on the device; returns its loss, not waited for."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")

    def step(batch: Batch) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss: torch.Tensor = model(**batch.inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def timed(
    step: Callable[[Any], torch.Tensor], batches: Sequence[Any], device: torch.device
) -> tuple[list[float], float]:
    """Milliseconds of each step, and the last loss; on a GPU by events, without waiting between."""
    if device.type == "cuda":
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(len(batches) + 1)]
        marks[0].record()
        for batch, mark in zip(batches, marks[1:], strict=True):
            loss = step(batch)
            mark.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) for a, b in pairwise(marks)], float(loss)
    spent = []
    for batch in batches:
        started = time.perf_counter()
        loss = step(batch)
        spent.append(1e3 * (time.perf_counter() - started))
    return spent, float(loss)


def held(device: torch.device, *, most: bool) -> int:
    """Bytes of tensors on the GPU, now or at most since the last reset; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    return torch.cuda.max_memory_allocated() if most else torch.cuda.memory_allocated()


def batches_of(batching: Batching, given: argparse.Namespace, vocabulary: int) -> list[Batch]:
    """All batches of a run, those of the warm-up first; the same for every base."""
    random = Random(given.seed)  # noqa: S311  # no secret: repeatable inputs
    lengths = draw_lengths(random, QUANTILES)
    count = given.warmup + given.steps
    if batching == "padded":
        return padded_batches(
            random, lengths, count=count, positions=given.positions, vocabulary=vocabulary
        )
    return packed_batches(
        random,
        lengths,
        count=count,
        positions=given.positions,
        sequence=given.sequence,
        vocabulary=vocabulary,
    )


def measure(
    model: Any, base: Base, batching: Batching, given: argparse.Namespace, device: torch.device
) -> Result:
    """Warm up, time, and count what the steps were worth."""
    sizes = TOY if given.toy else QWEN_7B
    batches = [
        replace(batch, inputs={name: each.to(device) for name, each in batch.inputs.items()})
        for batch in batches_of(batching, given, sizes["vocab_size"])
    ]
    model_bytes = held(device, most=False)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step = stepper(model, device)
    timed(step, batches[: given.warmup], device)
    counted = batches[given.warmup :]
    steps_ms, loss = timed(step, counted, device)
    if not isfinite(loss):
        return Result(base, batching, failed=f"the loss is {loss}")
    weights = matrix_weights(model)
    width = sizes["num_hidden_layers"] * sizes["hidden_size"]
    flops_6n, flops_4n = (
        sum(
            useful_flops(batch, weights=weights, per_weight=each, attention_width=width)
            for batch in counted
        )
        for each in (6, 4)
    )
    return Result(
        base,
        batching,
        tokens=sum(batch.tokens for batch in counted),
        positions=sum(batch.positions for batch in counted),
        steps_ms=tuple(steps_ms),
        flops_6n=flops_6n,
        flops_4n=flops_4n,
        model_bytes=model_bytes,
        peak_bytes=held(device, most=True),
        loss=loss,
    )


def results(given: argparse.Namespace, device: torch.device) -> Iterator[Result]:
    """A row for each base and batching; what does not fit, or is not installed, says so."""
    for base in given.bases:
        left: list[Batching] = list(given.batchings)
        try:
            if base == "nf4" and find_spec("bitsandbytes") is None:
                raise ImportError("bitsandbytes is not installed")  # noqa: TRY301  # one way out
            model = build(
                base,
                TOY if given.toy else QWEN_7B,
                device,
                rank=given.rank,
                attention=given.attention,
                checkpointing=not given.no_checkpointing,
                seed=given.seed,
            )
            while left:
                yield measure(model, base, left[0], given, device)
                del left[0]
        except (torch.OutOfMemoryError, ImportError) as error:
            reason = str(error).splitlines()[0]
            yield from (Result(base, batching, failed=reason) for batching in left)
        model = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def product_tflops(device: torch.device, size: int, *, repeats: int = 20) -> float:
    """What a large bfloat16 product of random matrices reaches here: the ceiling in practice."""
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))

    def product(_: None) -> torch.Tensor:
        return (left @ right)[0, 0]

    timed(product, [None] * 3, device)
    spent, _ = timed(product, [None] * repeats, device)
    return 2 * size**3 / (median(spent) / 1e3) / 1e12


def conditions(given: argparse.Namespace, device: torch.device, peak: float | None) -> list[str]:
    """What the figures hold for, a line each."""
    sizes = TOY if given.toy else QWEN_7B
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, to see that it runs"
    installed = [each for each in ("transformers", "peft", "bitsandbytes") if find_spec(each)]
    versions = ", ".join(f"{each} {version(each)}" for each in installed)
    rate = product_tflops(device, 256 if given.toy else 8192)
    said = {
        "device": name,
        "versions": f"torch {torch.__version__}, CUDA {torch.version.cuda}, {versions}",
        "peak": f"{peak or 'unknown'} TFLOP/s dense bfloat16, as the vendor says",
        "product of random matrices": f"{rate:.4g} TFLOP/s, just before",
        "model": "random Qwen2, " + ", ".join(f"{key}={value}" for key, value in sizes.items()),
        "adapter": f"rank {given.rank}, all linear layers but the head; AdamW",
        "attention": given.attention,
        "activations": "kept" if given.no_checkpointing else "computed again",
        "a step": f"{given.positions} positions at most; packed sequences of {given.sequence}",
        "timed": f"{given.steps} steps after {given.warmup}; seed {given.seed}",
        "lengths": "of the gold targets in Qwen2.5's tokens: mean 283, longest 787",
        "shares of the peak": MEANING,
    }
    return [f"{key}: {value}" for key, value in said.items()]


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; wrong ones end the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.language_training")
    parser.add_argument("--bases", nargs="+", choices=["bf16", "nf4"], default=["bf16", "nf4"])
    parser.add_argument(
        "--batchings", nargs="+", choices=["padded", "packed"], default=["padded", "packed"]
    )
    parser.add_argument(
        "--positions", type=int, default=8192, help="tokens of a step, with padding"
    )
    parser.add_argument("--sequence", type=int, default=2048, help="tokens of a packed sequence")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter")
    parser.add_argument("--attention", default="sdpa", help="as transformers names it")
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, at least 20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak-tflops", type=float, help="of a device that is not in the table")
    parser.add_argument("--out", type=Path, help="a Markdown file")
    parser.add_argument("--toy", action="store_true", help="a toy's sizes, on a CPU")
    given = parser.parse_args(arguments)
    if given.steps < FEWEST_STEPS or given.warmup < 1:
        parser.error(f"--steps {given.steps} --warmup {given.warmup}: time 20 or more, after 1")
    if not LONGEST <= given.sequence <= given.positions:
        parser.error(
            f"--sequence {given.sequence} --positions {given.positions}: a sequence holds the "
            f"longest example ({LONGEST}), a step at least a sequence"
        )
    return given


def main(arguments: Sequence[str]) -> int:
    """Measure and print; returns the exit status."""
    given = parse_arguments(arguments)
    reason = None if given.toy else refusal()
    if reason is not None:
        print(reason, file=sys.stderr)
        return REFUSED
    device = torch.device("cpu" if given.toy else "cuda")
    peak = given.peak_tflops
    if peak is None and device.type == "cuda":
        peak = peak_tflops(torch.cuda.get_device_name())
    said = conditions(given, device, peak)
    print("\n".join(said), flush=True)
    rows = []
    for row in results(given, device):
        rows.append(row)
        print(table([row], peak).splitlines()[-1], flush=True)
    text = "\n".join(["# Training an adapter over a 7B model", "", *(f"- {each}" for each in said)])
    text += f"\n\n{table(rows, peak)}\n"
    print(f"\n{table(rows, peak)}")
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 0 if any(row.failed is None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
