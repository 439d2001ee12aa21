"""The first training of a small language model on a CPU: all its weights, on rows of any length.

TRL's trainer computes the same loss in float32 chunks made for large vocabularies on a GPU; on two
cores that took half of each step. Here batches hold like lengths up to a budget of tokens, the head
runs only where something is learnt, and attention is plain matrix products (torch's fused kernel
took a third of a step on rows this short). A run that is cut short goes on from its last
checkpoint, with the same batches.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from training.language_examples import Row

_WINDOW: Final = 1024
"""Rows that are sorted by length together: long enough to save padding, short enough to mix."""
_BETAS: Final = (0.9, 0.95)
_LEAST_RATE: Final = 0.05
_LINES: Final = 20


@dataclass(frozen=True)
class Lesson:
    """One row, and what is learnt of it.

    Attributes:
        input_ids: what is read.
        asked: (position, token): having read so far, the token is to be said.
    """

    input_ids: list[int]
    asked: list[tuple[int, int]]


def lesson_of_row(row: Row) -> Lesson:
    """The assistant's words of an example."""
    said = enumerate(zip(row.input_ids, row.assistant_masks, strict=True))
    return Lesson(row.input_ids, [(at - 1, token) for at, (token, mine) in said if mine])


def lesson_of_text(ids: list[int]) -> Lesson:
    """Every word of a text after its first."""
    return Lesson(ids, list(enumerate(ids[1:])))


@dataclass(frozen=True)
class PretrainingStage:
    """How a model is trained.

    Attributes:
        name: as progress lines call it.
        epochs: over the rows.
        batch_tokens: rows of a batch x its longest row stay within it.
        learning_rate: after a warm-up; it then falls in a straight line.
        warmup_steps: of the rate.
        save_every_steps: of a checkpoint.
        seed: of the order of rows.
    """

    name: str
    epochs: float
    batch_tokens: int
    learning_rate: float
    warmup_steps: int
    save_every_steps: int
    seed: int


@dataclass(frozen=True)
class Pretrained:
    """What a run left.

    Attributes:
        curve: (step, mean loss since the line before), in order.
        tokens_per_s: real tokens of this process's own steps.
    """

    curve: list[tuple[int, float]]
    tokens_per_s: float


def pretrain(
    model: Any, rows: Sequence[Lesson], stage: PretrainingStage, *, work_dir: Path
) -> Pretrained:
    """Train every weight of a model in place.

    Args:
        model: a causal language model of transformers, on a CPU.
        rows: what is read, and what of it is learnt; none is empty.
        stage: how.
        work_dir: where the checkpoint lies.
    """
    batches = plan(rows, stage)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.learning_rate, betas=_BETAS, weight_decay=0.05, fused=True
    )
    done = _resume(model, optimizer, work_dir)
    curve: list[tuple[int, float]] = []
    losses: list[float] = []
    tokens, started = 0, time.perf_counter()
    model.set_attn_implementation("eager")
    model.train()
    for step in range(done, len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * _rate(step, len(batches), stage.warmup_steps)
        batch = [rows[index] for index in batches[step]]
        loss = lesson_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        tokens += sum(len(row.input_ids) for row in batch)
        speed = tokens / (time.perf_counter() - started)
        if (step + 1) % max(1, len(batches) // _LINES) == 0 or step + 1 == len(batches):
            curve.append((step + 1, float(np.mean(losses))))
            losses.clear()
            print(
                f"{stage.name}: step {step + 1}/{len(batches)} loss {curve[-1][1]:.4f} "
                f"{speed:,.0f} tokens/s",
                flush=True,
            )
        if (step + 1) % stage.save_every_steps == 0 or step + 1 == len(batches):
            _save(model, optimizer, work_dir, step + 1)
    return Pretrained(curve, tokens / max(time.perf_counter() - started, 1e-9))


def plan(rows: Sequence[Lesson], stage: PretrainingStage) -> list[list[int]]:
    """Rows' indices, batch by batch: the same for the same seed."""
    rng = np.random.default_rng(stage.seed)
    batches: list[list[int]] = []
    left = stage.epochs
    while left > 0:
        order = rng.permutation(len(rows))[: max(1, round(min(left, 1.0) * len(rows)))]
        for start in range(0, len(order), _WINDOW):
            window = sorted(order[start : start + _WINDOW], key=lambda at: len(rows[at].input_ids))
            cut = list(_within_budget([int(at) for at in window], rows, stage.batch_tokens))
            batches += [cut[at] for at in rng.permutation(len(cut))]
        left -= 1.0
    return batches


def lesson_loss(model: Any, batch: Sequence[Lesson]) -> torch.Tensor:
    """Mean cross-entropy of what is asked in a batch; the head runs nowhere else."""
    longest = max(len(row.input_ids) for row in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    for number, row in enumerate(batch):
        ids[number, : len(row.input_ids)] = torch.tensor(row.input_ids)
    asked = [(number, *each) for number, row in enumerate(batch) for each in row.asked]
    numbers, places, tokens = torch.tensor(asked).unbind(dim=1)
    # Padding stands on the right, where causal attention never looks; it needs no mask.
    with torch.autocast("cpu", torch.bfloat16):
        states = model.model(input_ids=ids, use_cache=False).last_hidden_state
        scores = model.lm_head(states[numbers, places])
    return functional.cross_entropy(scores.float(), tokens)


def _within_budget(
    order: Sequence[int], rows: Sequence[Lesson], batch_tokens: int
) -> Iterator[list[int]]:
    batch: list[int] = []
    for at in order:
        if batch and (len(batch) + 1) * len(rows[at].input_ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _rate(step: int, steps: int, warmup: int) -> float:
    return min(1.0, (step + 1) / max(1, warmup)) * max(_LEAST_RATE, 1.0 - step / steps)


def _save(model: Any, optimizer: torch.optim.Optimizer, work_dir: Path, step: int) -> None:
    """Weights and Adam's moments in one file, which appears whole or not at all."""
    tensors = {"step": torch.tensor(step)}
    for name, weight in model.named_parameters():
        tensors[f"weight.{name}"] = weight.data
        for kind, moment in optimizer.state[weight].items():
            tensors[f"{kind}.{name}"] = moment
    work_dir.mkdir(parents=True, exist_ok=True)
    partial = work_dir / "checkpoint.partial"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(work_dir / "checkpoint.safetensors")


def _resume(model: Any, optimizer: torch.optim.Optimizer, work_dir: Path) -> int:
    path = work_dir / "checkpoint.safetensors"
    if not path.is_file():
        return 0
    tensors = load_file(path)
    for name, weight in model.named_parameters():
        weight.data.copy_(tensors[f"weight.{name}"])
        optimizer.state[weight] = {
            kind: tensors[f"{kind}.{name}"] for kind in ("step", "exp_avg", "exp_avg_sq")
        }
    return int(tensors["step"])
