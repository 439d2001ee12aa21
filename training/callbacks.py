"""What happens beside the steps of a training stage: averaged weights, and lines people read."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def _kept_average(args: TrainingArguments, state: TrainerState) -> Path:
    folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    return folder / "average.safetensors"


class AveragedWeights(TrainerCallback):
    """Exponential moving average of the weights, put in place when training ends."""

    def __init__(self, model: nn.Module, decay: float):
        """Average ``model``'s parameters; ``decay`` near 1 remembers longer."""
        self._model = model
        self._decay = decay
        self._average: list[Tensor] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take up the average of the checkpoint that a killed run goes on from."""
        kept = _kept_average(args, state)
        if kept.is_file():
            values = load_file(kept)
            self._average = [values[str(number)] for number in range(len(values))]

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the average beside the checkpoint."""
        values = {str(number): average for number, average in enumerate(self._average)}
        save_file(values, _kept_average(args, state))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Move the average towards the present weights."""
        present = [parameter.data for parameter in self._model.parameters()]
        if not self._average:
            self._average = [values.clone() for values in present]
            return
        # Early weights are far off; a short memory at first keeps them out of the average.
        decay = min(self._decay, (1 + state.global_step) / (10 + state.global_step))
        torch._foreach_lerp_(self._average, present, 1 - decay)  # fused, one call

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Replace the weights by their average."""
        for parameter, average in zip(self._model.parameters(), self._average, strict=False):
            parameter.data.copy_(average)


class ProgressLines(TrainerCallback):
    """One line now and then, so that a person sees that it moves; kept as curves."""

    def __init__(self, stage: str):
        """Report on ``stage``."""
        self._stage = stage
        self.curve: list[tuple[int, float]] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Print the loss."""
        if logs and "loss" in logs:
            self.curve.append((state.global_step, float(logs["loss"])))
            print(  # a component's standard output is its log
                f"{self._stage}: step {state.global_step}/{state.max_steps} "
                f"loss {float(logs['loss']):.4f}",
                flush=True,
            )
