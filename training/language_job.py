"""One training of a language model, as a launcher starts it: the same program in every process.

    accelerate launch --config_file training/launch/fsdp.yaml -m training.language_job
        --targets TARGETS --base BASE --recipe qwen-7b-multi-gpu --out ADAPTER --checkpoints WORK

On a cluster training/launch/train_job.yaml starts it. With one GPU, or none, the component
train_llm does the same in its own process.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState  # type: ignore[import-untyped]  # it ships no types

from data.errors import MatjipError
from training.language_recipe import language_recipe_text, parse_language_recipe
from training.llm import train_language_model


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """What is trained, on what, and where to; on wrong arguments it ends the process."""
    parser = argparse.ArgumentParser(prog="python -m training.language_job")
    parser.add_argument("--targets", type=Path, required=True, help="folder of kind targets")
    parser.add_argument("--base", type=Path, required=True, help="folder of kind language_model")
    parser.add_argument("--recipe", required=True, help="name in training/recipes, or a .yaml path")
    parser.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="survives a kill; shared by all processes"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Train; returns the exit status. A refusal is printed, by every process that refuses."""
    given = parse_arguments(arguments)
    # Before a weight is loaded: it names this process's GPU, and lets the first process alone read.
    state = PartialState()
    try:
        manifest = train_language_model(
            given.targets,
            given.base,
            parse_language_recipe(language_recipe_text(given.recipe)),
            given.out,
            checkpoints=given.checkpoints,
        )
    except MatjipError as error:
        print(f"process {state.process_index}: {error}", file=sys.stderr, flush=True)
        return 1
    finally:
        state.destroy_process_group()
    if state.is_main_process:
        print(f"adapter {manifest.digest} in {given.out}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
