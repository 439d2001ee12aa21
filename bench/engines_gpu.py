"""`make bench-gpu`: engines on an NVIDIA GPU against its roofline, and its memory run short.

    python -m bench.engines_gpu [--only peaks engines admission out_of_memory] [--folder MODEL]

Real tokens a second of torch padded, compiled, and unpadded with CUDA graphs, and of TensorRT where
a folder given with ``--folder`` holds engines for this GPU; beside them what the GPU itself can do,
measured in the same run. Then admission and running out of memory, on the GPU's real memory.
Everything is made on the spot: no weights, tokenizer or network. Without a GPU it says so and ends
with status 2; ``--toy`` runs all of it on a CPU with a toy's sizes, to see that it runs.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from bench.corpus import SEED, draw_windows
from bench.gpu_contestants import contestants
from bench.gpu_memory import measure_admission, measure_out_of_memory
from bench.gpu_model import Sizes, make_model, sizes_of
from bench.gpu_report import write_gpu_report
from bench.gpu_roofline import measure_peaks
from bench.gpu_speed import measure_speeds
from data.manifest import write_json
from serving.engines.measuring import FAILURES
from serving.engines.torch_cuda import unfit_here
from serving.text_encoder import TextEncoder

REFUSED: Final = 2
OUT: Final = Path(__file__).parents[1] / "var" / "bench"
PARTS: Final = ("peaks", "engines", "admission", "out_of_memory")
BUDGETS: Final = (1_024, 4_096, 16_384, 65_536)
TOY_BUDGETS: Final = (256, 1_024)
WINDOWS: Final = 4_096
TOY_WINDOWS: Final = 48
Found = dict[str, Any]


def refusal() -> str | None:
    """Why this machine cannot be measured on; None if it can."""
    reason = unfit_here("bf16")
    return reason and f"{reason}; or pass --toy to see that the code runs"


def measure(given: argparse.Namespace) -> Found:
    """All parts that are asked for; what fails leaves its reason, and the others go on."""
    device = torch.device("cpu" if given.toy else "cuda")
    model = make_model(toy=given.toy, folder=given.folder)
    sizes = sizes_of(model)
    found: Found = {"conditions": conditions(given, device, sizes), "failures": {}}
    print("\n".join(f"{key}: {value}" for key, value in found["conditions"].items()), flush=True)
    steps: dict[str, Callable[[], Found]] = {
        "peaks": lambda: measure_peaks(sizes, device, toy=given.toy),
        "engines": lambda: _engines(given, model, device, sizes, found["peaks"]),
        "admission": lambda: measure_admission(model, sizes.vocabulary, device=str(device)),
        "out_of_memory": lambda: measure_out_of_memory(model, sizes.vocabulary, device=str(device)),
    }
    # The engines' shares of the roofline need the peaks of the same run.
    wanted = {*given.only, "peaks"} if "engines" in given.only else {*given.only}
    for name in PARTS:
        if name not in wanted:
            continue
        print(f"{name} …", flush=True)
        begun = time.monotonic()
        try:
            found[name] = steps[name]()
        except (*FAILURES, AssertionError) as error:
            found["failures"][name] = f"{type(error).__name__}: {error}"
        said = found["failures"].get(name, "done")
        print(f"{name}: {said}, {time.monotonic() - begun:.0f} s", flush=True)
    found["failures"] |= broken(found)
    return found


_ALIKE: Final = 0.999
"""Least cosine of an answer after a split to the same text's alone, in half precision."""


def broken(found: Found) -> dict[str, str]:
    """What must hold wherever memory runs short, and did not."""
    failures = {}
    for name in ("admission", "out_of_memory"):
        part = found.get(name)
        if part and part["answered"] != part["asked"]:
            failures[f"{name}: answers"] = f"{part['answered']} of {part['asked']} texts"
    admission, short = found.get("admission"), found.get("out_of_memory")
    for what in ("shrink_s", "grow_s"):
        if admission and admission[what] is None:
            failures[f"admission: {what}"] = "the limit did not follow"
    if short and short["cos_min"] < _ALIKE:
        failures["out_of_memory: answers alike"] = f"cosine {short['cos_min']!r} to alone"
    if short and not short["out_of_memory"]:
        failures["out_of_memory: provoked"] = "no batch ran out of memory: nothing was shown"
    return failures


def _engines(
    given: argparse.Namespace,
    model: TextEncoder,
    device: torch.device,
    sizes: Sizes,
    peaks: Found,
) -> Found:
    torch.backends.cuda.matmul.allow_tf32 = False  # the reference is float32 as it is
    windows = draw_windows(given.windows, sizes.vocabulary)
    return measure_speeds(
        contestants(model, device, folder=given.folder, compiled=not given.no_compile),
        windows,
        TOY_BUDGETS if given.toy else BUDGETS,
        sizes,
        peaks,
        rounds=given.rounds,
        ends=time.monotonic() + given.engines_s,
        say=lambda line: print(line, flush=True),
    )


def conditions(given: argparse.Namespace, device: torch.device, sizes: Sizes) -> dict[str, str]:
    """What the figures hold for."""
    said = {
        "device": "CPU, to see that it runs",
        "versions": f"torch {torch.__version__}, CUDA {torch.version.cuda}",
        "model": str(given.folder or "random ELECTRA, " + ("a toy" if given.toy else "base"))
        + f", {sizes}",
        "windows": f"{given.windows}, lognormal lengths of 39 tokens on average, 128 at most; "
        f"seed {SEED}; {given.rounds} rounds, the median counts",
        "roofline": "a batch's products at the best product measured, or the bytes they move at "
        "the bandwidth measured, whichever takes longer; padding is no work done",
        "quality": "against torch in float32 on the same device and model",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        said["device"] = (
            f"{properties.name}, SM {properties.major}.{properties.minor}, "
            f"{properties.total_memory / 2**30:.0f} GiB"
        )
    return said


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; wrong ones end the process."""
    parser = argparse.ArgumentParser(prog="python -m bench.engines_gpu")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=Path, help="an embedding folder or classifier instead")
    parser.add_argument("--windows", type=int, help="how many are measured on")
    parser.add_argument("--rounds", type=int, default=3, help="that each batch is run")
    parser.add_argument("--engines-s", type=float, default=270.0, help="no engine begins later")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    parser.add_argument("--toy", action="store_true", help="a toy's sizes, on a CPU")
    given = parser.parse_args(arguments)
    if given.windows is None:
        given.windows = TOY_WINDOWS if given.toy else WINDOWS
    if given.windows < TOY_WINDOWS or given.rounds < 1:
        parser.error(
            f"--windows {given.windows} --rounds {given.rounds}: measure {TOY_WINDOWS} windows or "
            "more, at least once"
        )
    return given


def main(arguments: Sequence[str]) -> int:
    """Measure, write engines_gpu.json, plots and Markdown; returns the exit status."""
    given = parse_arguments(arguments)
    reason = None if given.toy else refusal()
    if reason is not None:
        print(reason, file=sys.stderr)
        return REFUSED
    given.out.mkdir(parents=True, exist_ok=True)
    found = measure(given)
    write_json(given.out / "engines_gpu.json", found)
    report = write_gpu_report(given.out, found)
    print(report.read_text(encoding="utf-8"))
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
