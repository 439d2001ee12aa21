"""Supervised training of a language model on its answers, with TRL's trainer.

Used twice: to teach a base made on the spot what reviews and answers look like, and to fine-tune
an adapter (QLoRA) on the snapshot's targets. Loss counts the answers' tokens alone. A killed run
goes on from its last checkpoint.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from data.errors import DataUnfitError
from training.language_examples import Row, columns

_LOGGED: Final = 0.05
"""Share of the steps between two lines of progress."""


@dataclass(frozen=True)
class StageSettings:
    """One stage of training.

    Attributes:
        name: as progress lines and curves call it.
        epochs: over the rows.
        warmup_share: of the steps, below 1.
        batch_examples: of one forward pass; with ``packing``, sequences of ``max_tokens``.
        max_tokens: of a row; none is longer.
        packing: several examples in a sequence, kept apart by their positions. Needs
            FlashAttention; without a GPU batches of like lengths are padded instead.
    """

    name: str
    epochs: float
    batch_examples: int
    accumulation: int
    learning_rate: float
    warmup_share: float
    max_tokens: int
    packing: bool
    gradient_checkpointing: bool
    save_every_steps: int
    seed: int
    bf16: bool


@dataclass(frozen=True)
class Trained:
    """What a stage left: the model, its loss by step, and how fast it went.

    Attributes:
        weights: the model's, gathered whole in the first of several processes; None where one
            process holds them as they are.
        curve: (step, loss) in order.
        tokens_per_s: real tokens, prompts with them, of this process's own steps.
    """

    model: Any
    weights: dict[str, Any] | None
    curve: list[tuple[int, float]]
    tokens_per_s: float


class _Progress(TrainerCallback):
    """A line now and then: step, loss, tokens a second."""

    def __init__(self, stage: str):
        self._stage = stage
        self._started = time.perf_counter()
        self._tokens_before = 0.0
        self.tokens_per_s = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count from here, also after a resume."""
        self._started = time.perf_counter()
        self._tokens_before = float(state.num_input_tokens_seen)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Print where it stands."""
        if not logs or "loss" not in logs:
            return
        seen = float(state.num_input_tokens_seen) - self._tokens_before
        self.tokens_per_s = seen / max(time.perf_counter() - self._started, 1e-9)
        print(
            f"{self._stage}: step {state.global_step}/{state.max_steps} "
            f"loss {float(logs['loss']):.4f} {self.tokens_per_s:,.0f} tokens/s",
            flush=True,
        )


def train_on_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[Row],
    settings: StageSettings,
    *,
    work_dir: Path,
    adapter: Any = None,
) -> Trained:
    """Train a model on rows.

    Args:
        model: a causal language model; all of it is trained, or the adapter alone.
        tokenizer: for padding.
        rows: what is learnt.
        settings: how.
        work_dir: where checkpoints lie; a run that was cut short goes on from the last one.
        adapter: peft's config of the adapter that is laid on the model.

    Raises:
        DataUnfitError: there are no rows.
    """
    from trl.trainer.sft_trainer import SFTTrainer

    if not rows:
        raise DataUnfitError(f"{settings.name}: nothing to learn from; build targets first")
    progress = _Progress(settings.name)
    trainer = SFTTrainer(
        model=model,
        args=_arguments(settings, work_dir),
        train_dataset=Dataset.from_dict(columns(rows)),
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(str(work_dir)) if work_dir.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    curve = [
        (int(line["step"]), float(line["loss"]))
        for line in trainer.state.log_history
        if "loss" in line
    ]
    # Every process takes part: each holds a shard of every tensor.
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    return Trained(trainer.model, weights, curve, progress.tokens_per_s)


def _arguments(settings: StageSettings, work_dir: Path) -> Any:
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig(
        output_dir=str(work_dir),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_examples,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        # Shares of the steps that there will be: packing and several processes decide how many.
        warmup_steps=settings.warmup_share,
        weight_decay=0.01,
        max_length=settings.max_tokens,
        packing=settings.packing,
        train_sampling_strategy="random" if settings.packing else "group_by_length",
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=settings.bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=_LOGGED,
        save_steps=settings.save_every_steps,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
