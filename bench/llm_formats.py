"""Formats of a language model beside one another: size, quality and speed as a markdown table.

Run: python -m bench.llm_formats MERGED TARGETS [--split SPLIT] [--out FOLDER] [--examples 64]

MERGED is what the step merge_llm writes, TARGETS what build_targets writes. Every format is made
anew and scored on held-out answers. Speed is this process's, with dequantised weights, as a share
of the parent's in the same run; what vLLM reaches with the formats' kernels is not measured here.
"""

import argparse
import json
import platform
import tempfile
from pathlib import Path

import torch

from training.llm_formats import FormatRow, compare_formats
from training.quantize_llm import RECIPES


def table(rows: list[FormatRow]) -> str:
    """A markdown table, the parent first."""
    lines = [
        "| format | MB | size | perplexity | top-1 as parent | KL, nats | speed in process |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.format} | {row.bytes / 1e6:.2f} | {row.size:.2f} × | {row.perplexity:.4f} | "
        f"{row.top1_agreement:.2%} | {row.kl_mean:.2g} | {row.speed:.2f} × |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("merged", type=Path)
    parser.add_argument("targets", type=Path)
    parser.add_argument("--split", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None, help="where the models are kept")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="write the rows here as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = compare_formats(
            given.merged,
            given.targets,
            given.split,
            given.out or Path(scratch),
            recipes=given.recipes,
            part=given.part,
            examples=given.examples,
            samples=given.samples,
            seed=given.seed,
        )
    if given.json is not None:
        given.json.write_text(json.dumps([row.model_dump() for row in rows], indent=2))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    print(table(rows))
    print(
        f"\n{given.examples} examples of {given.part}, {given.samples} calibration texts, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device or 'CPU'}"
    )


if __name__ == "__main__":
    main()
