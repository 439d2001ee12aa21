"""transformers' Trainer, told how matjip's batches, losses and optimiser look.

Used for all three stages: masked tokens of unlabelled text, labels of synthetic reviews, and
fine-tuning on the snapshot.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.masking_utils import sdpa_mask
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from serving.encoder import MultiTaskElectra
from training.batches import Batch, Collator, ReviewTokens, TokenBudgetSampler
from training.callbacks import AveragedWeights, ProgressLines
from training.losses import ClassWeights, Task, task_losses, total_loss

Loss = Callable[["PretrainableElectra", Batch], Tensor]


class PretrainableElectra(nn.Module):
    """The classifier with a masked-token head beside it, for training only.

    The head's softmax runs over the hidden tokens of the batch instead of the whole vocabulary,
    corrected by each token's chance to be among them (sampled softmax): on a CPU the full softmax
    would cost more than the encoder.
    """

    token_frequency: Tensor

    def __init__(self, model: MultiTaskElectra, token_frequency: Tensor):
        """Wrap ``model``; ``token_frequency`` (vocabulary,) adds up to 1."""
        super().__init__()
        self.model = model
        size, embedding = model.config.hidden_size, model.config.embedding_size
        self.masked_head = nn.Sequential(
            nn.Linear(size, embedding), nn.GELU(), nn.LayerNorm(embedding)
        )
        self.masked_bias = nn.Parameter(torch.zeros(model.config.vocab_size))
        self.register_buffer("token_frequency", token_frequency, persistent=False)

    def states(self, batch: Batch) -> Tensor:
        """(windows, tokens, hidden) of a batch."""
        return self.model.states(batch["input_ids"], batch["attention_mask"])

    def masked_loss(self, states: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the hidden tokens among the batch's hidden tokens."""
        if not len(batch["masked_ids"]):
            return states.sum() * 0.0
        hidden = states.reshape(-1, states.shape[-1])[batch["masked_positions"]]
        candidates, targets = batch["masked_ids"].unique(return_inverse=True)
        chance = -torch.expm1(
            len(batch["masked_ids"]) * torch.log1p(-self.token_frequency[candidates])
        )
        embeddings = self.model.electra.embeddings.word_embeddings.weight[candidates]
        scores = functional.linear(
            self.masked_head(hidden), embeddings, self.masked_bias[candidates]
        )
        return functional.cross_entropy(scores.float() - chance.clamp(min=1e-9).log(), targets)

    def review_logits(self, states: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The heads on each review's windows, averaged as serving averages them."""
        pooled = self.model.pooled(states, batch["attention_mask"])
        reviews = int(batch["text_index"].max()) + 1
        if len(pooled) != reviews:
            merged = pooled.new_zeros(reviews, pooled.shape[1])
            weighted = pooled * batch["window_weights"].unsqueeze(1).to(pooled.dtype)
            pooled = merged.index_add(0, batch["text_index"], weighted)
        return self.model.heads(self.model.dropout(pooled))


def masked_token_loss(model: PretrainableElectra, batch: Batch) -> Tensor:
    """Loss of the first stage; zero on a batch where nothing was hidden."""
    return model.masked_loss(model.states(batch), batch)


def labelled_loss(
    class_weights: ClassWeights,
    loss_weights: Mapping[Task, float],
    *,
    label_smoothing: float,
    masked_weight: float = 0.0,
) -> Loss:
    """Loss of the later stages; ``masked_weight`` keeps some of the first stage's in it."""

    def loss(model: PretrainableElectra, batch: Batch) -> Tensor:
        states = model.states(batch)
        losses = task_losses(
            model.review_logits(states, batch),
            batch,
            class_weights,
            label_smoothing=label_smoothing,
        )
        total = total_loss(losses, loss_weights)
        if masked_weight:
            total = total + masked_weight * model.masked_loss(states, batch)
        return total

    return loss


def _attention_in_fp32(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    with torch.autocast(query.device.type, enabled=False):
        mixed = functional.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            attn_mask=attention_mask,
            dropout_p=dropout,
            scale=scaling,
        )
    return mixed.transpose(1, 2).contiguous(), None


def use_fp32_attention(model: MultiTaskElectra) -> None:
    """Keep attention alone in fp32: the CPU's bf16 kernel is slow backwards on short rows.

    Measured on two layers of width 256 and batches of 4,096 tokens: 0.31 s a step instead of 0.45.
    """
    AttentionInterface.register("sdpa_fp32", _attention_in_fp32)
    AttentionMaskInterface.register("sdpa_fp32", sdpa_mask)
    model.electra.set_attn_implementation("sdpa_fp32")


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """No dropout while the context lasts: hidden tokens are noise enough, and it costs time."""
    layers = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    rates = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate


class _MatjipTrainer(Trainer):
    def __init__(
        self,
        *,
        loss: Loss,
        tokens: ReviewTokens,
        sampler: TokenBudgetSampler,
        weight_decay: float,
        embedding_factor: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._loss = loss
        self._sampler = sampler
        self._tokens = tokens
        self._net = kwargs["model"]
        self._decay = weight_decay
        self._embedding_factor = embedding_factor

    def get_train_dataloader(self) -> DataLoader[int]:
        return DataLoader(self._tokens, batch_sampler=self._sampler, collate_fn=self.data_collator)

    def compute_loss(self, model: Any, inputs: Batch, *_: Any, **__: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.args.bf16):
            return self._loss(model, inputs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        groups: dict[str, list[nn.Parameter]] = {"matrix": [], "embedding": [], "vector": []}
        for name, parameter in self._net.named_parameters():
            is_embedding = "word_embeddings" in name
            kind = "embedding" if is_embedding else "matrix" if parameter.ndim > 1 else "vector"
            groups[kind].append(parameter)
        rate = self.args.learning_rate
        self.optimizer = torch.optim.AdamW(
            [
                {"params": groups["matrix"], "weight_decay": self._decay},
                {
                    "params": groups["embedding"],
                    "weight_decay": self._decay,
                    "lr": rate * self._embedding_factor,
                },
                {"params": groups["vector"], "weight_decay": 0.0},
            ],
            lr=rate,
            betas=(0.9, 0.98),
            eps=1e-6,
            fused=True,
        )
        return self.optimizer


@dataclass(frozen=True)
class StageSettings:
    """How one stage is optimised; ``training/recipe.py`` says what each number means."""

    name: str
    epochs: float
    batch_tokens: int
    learning_rate: float
    seed: int
    save_every_steps: int
    weight_decay: float = 0.01
    warmup_share: float = 0.06
    embedding_factor: float = 1.0
    average_decay: float = 0.0
    bf16: bool = False


def _last_whole_checkpoint(folder: Path) -> str | None:
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:  # the state is written last: a run that was killed while saving left none
            TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
    last: str | None = get_last_checkpoint(str(folder))
    return last


def run_stage(
    model: PretrainableElectra,
    tokens: ReviewTokens,
    collator: Collator,
    loss: Loss,
    settings: StageSettings,
    *,
    work_dir: Path,
) -> list[tuple[int, float]]:
    """Train one stage in place; a stage that was killed goes on from its last checkpoint.

    ``work_dir`` holds the checkpoints. The caller keys it by everything that matters, and removes
    it when the result is safe. Returns the loss curve: (step, loss).
    """
    checkpoints = work_dir / settings.name.replace(" ", "-")
    checkpoints.mkdir(parents=True, exist_ok=True)
    if settings.bf16 and not torch.cuda.is_available():
        use_fp32_attention(model.model)
    progress = ProgressLines(settings.name)
    callbacks: list[TrainerCallback] = [progress]
    if settings.average_decay:
        callbacks.append(AveragedWeights(model, settings.average_decay))
    trainer = _MatjipTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(checkpoints),
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup_share,
            logging_steps=25,
            save_strategy="steps",
            save_steps=settings.save_every_steps,
            save_total_limit=2,
            use_cpu=not torch.cuda.is_available(),
            bf16=settings.bf16,
            report_to=[],
            remove_unused_columns=False,
            disable_tqdm=True,
            max_grad_norm=1.0,
            seed=settings.seed,
            per_device_train_batch_size=1,
        ),
        train_dataset=tokens,
        data_collator=collator,
        callbacks=callbacks,
        loss=loss,
        tokens=tokens,
        sampler=TokenBudgetSampler(
            tokens,
            budget=settings.batch_tokens,
            longest=collator.max_tokens,
            overlap=collator.overlap_tokens,
            seed=settings.seed,
        ),
        weight_decay=settings.weight_decay,
        embedding_factor=settings.embedding_factor,
    )
    trainer.remove_callback(PrinterCallback)  # our own lines say it once
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(checkpoints))
    return progress.curve
