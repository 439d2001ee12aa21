"""A small stage of training; run as a program it stops after its first checkpoint, to be killed.

Load this file by path: tests are no package.
"""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import ElectraConfig

from data.contract import INTENSITIES, SENTIMENTS, Label
from serving.encoder import MultiTaskElectra
from training.batches import Batch, Collator, ReviewTokens, targets_of
from training.losses import ClassWeights
from training.trainer import (
    Loss,
    PretrainableElectra,
    StageSettings,
    labelled_loss,
    masked_token_loss,
    run_stage,
)

EPOCHS = 6
SAVE_EVERY = 10
VOCABULARY = 40


def tokenizer() -> Tokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(35))]
    made = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def electra() -> MultiTaskElectra:
    return MultiTaskElectra(
        ElectraConfig(
            vocab_size=VOCABULARY,
            embedding_size=16,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=0.2,
        ),
        head_dropout=0.0,
    )


@dataclass
class Stage:
    model: PretrainableElectra
    tokens: ReviewTokens
    collator: Collator
    loss: Loss
    settings: StageSettings
    work_dir: Path

    def run(self) -> list[tuple[int, float]]:
        return run_stage(
            self.model,
            self.tokens,
            self.collator,
            self.loss,
            self.settings,
            work_dir=self.work_dir,
        )


def a_stage(
    work_dir: Path,
    *,
    seen: Callable[[Batch], object] = lambda batch: None,
    masked: bool = False,
    average_decay: float = 0.0,
    epochs: float = EPOCHS,
) -> Stage:
    """Always the same stage; ``seen`` is shown each batch before its loss."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    random = np.random.default_rng(7)
    words = random.integers(0, 35, (120, 9))
    words[:, 1::2] = words[:, ::2][:, :-1]  # every second word repeats the one before it
    lengths = random.integers(3, 10, 120)
    texts = [
        " ".join(f"w{w}" for w in row[:length]) for row, length in zip(words, lengths, strict=True)
    ]
    classes = words[:, 0] % 3
    targets = targets_of(
        [Label(sentiment=SENTIMENTS[c], intensity=INTENSITIES[2 * c]) for c in classes]
    )
    tokens = ReviewTokens(tokenizer(), texts)
    inner = (
        masked_token_loss
        if masked
        else labelled_loss(
            ClassWeights.from_targets(targets, power=0.0),
            {"sentiment": 1.0, "intensity": 0.5},
            label_smoothing=0.0,
        )
    )

    def loss(model: PretrainableElectra, batch: Batch) -> Tensor:
        seen(batch)
        return inner(model, batch)

    return Stage(
        model=PretrainableElectra(electra(), torch.full((VOCABULARY,), 1 / VOCABULARY)),
        tokens=tokens,
        collator=Collator(
            tokens,
            None if masked else targets,
            tokenizer(),
            16,
            4,
            0.3 if masked else 0.0,
            masked_targets=masked,
        ),
        loss=loss,
        settings=StageSettings(
            name="a stage",
            epochs=epochs,
            batch_tokens=200,
            learning_rate=1e-2,
            seed=3,
            save_every_steps=SAVE_EVERY,
            average_decay=average_decay,
        ),
        work_dir=work_dir,
    )


def main() -> None:
    steps = []

    def wait_to_be_killed(batch: Batch) -> None:
        steps.append(batch)
        if len(steps) > SAVE_EVERY + 3:
            print("waiting", flush=True)
            signal.pause()

    a_stage(Path(sys.argv[1]), seen=wait_to_be_killed, average_decay=0.9).run()


if __name__ == "__main__":
    main()
