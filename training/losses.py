"""The loss of the four tasks, each masked where a review has no label for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from data.contract import INTENSITIES, SENTIMENTS
from training.batches import Batch, Targets

Task = Literal["sentiment", "intensity", "emotions", "aspects"]
TaskLogits = tuple[Tensor, Tensor, Tensor, Tensor]
MOST_WEIGHT = 5.0
"""A class seen once in a thousand must not shout down all others."""


@dataclass(frozen=True)
class ClassWeights:
    """How much each class or positive label counts; all ones weigh reviews alike.

    Attributes:
        sentiment: (3,), mean about 1 over the training reviews.
        intensity: (5,), the same.
        emotions: (8,), weight of a present emotion against an absent one.
        mentions: (6,), weight of a mentioned aspect against an absent one.
    """

    sentiment: Tensor
    intensity: Tensor
    emotions: Tensor
    mentions: Tensor

    @classmethod
    def from_targets(cls, targets: Targets, *, power: float) -> Self:
        """Inverse frequencies to ``power``: 0 gives ones, 1 makes classes count alike."""

        def balanced(classes: NDArray[np.int64], mask: NDArray[np.float32], n: int) -> Tensor:
            counts = np.bincount(classes[mask > 0], minlength=n).astype(np.float64)
            weights = np.where(counts > 0, (counts.sum() / np.maximum(counts, 1)) ** power, 0.0)
            mean = (weights * counts).sum() / max(counts.sum(), 1)
            return torch.tensor(weights / mean if mean else np.ones(n), dtype=torch.float32)

        def rare(positives: NDArray[np.float32], mask: NDArray[np.float32]) -> Tensor:
            share = (
                positives[mask > 0].mean(0)
                if (mask > 0).any()
                else np.full(positives.shape[1], 0.5)
            )
            odds = ((1 - share) / np.maximum(share, 1e-3)) ** power
            return torch.tensor(np.clip(odds, 1.0, MOST_WEIGHT), dtype=torch.float32)

        return cls(
            sentiment=balanced(targets.sentiment, targets.sentiment_mask, len(SENTIMENTS)),
            intensity=balanced(targets.intensity, targets.intensity_mask, len(INTENSITIES)),
            emotions=rare(targets.emotions, targets.emotions_mask),
            mentions=rare(targets.aspects[:, :, 0], targets.aspects_mask),
        )


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1.0)


def _intensity_loss(logits: Tensor, batch: Batch, weights: ClassWeights) -> Tensor:
    above = (batch["intensity"].unsqueeze(1) > torch.arange(len(INTENSITIES) - 1)).float()
    loss = functional.binary_cross_entropy_with_logits(logits, above, reduction="none").sum(1)
    return _masked_mean(loss * weights.intensity[batch["intensity"]], batch["intensity_mask"])


def _aspects_loss(logits: Tensor, batch: Batch, weights: ClassWeights) -> Tensor:
    mentioned = batch["aspects"][:, :, 0]
    presence = functional.binary_cross_entropy_with_logits(
        logits[:, :, 0], mentioned, pos_weight=weights.mentions, reduction="none"
    )
    polarity = functional.binary_cross_entropy_with_logits(
        logits[:, :, 1:], batch["aspects"][:, :, 1:], reduction="none"
    )
    loss = presence.sum(1) + (polarity.sum(2) * mentioned).sum(1)
    return _masked_mean(loss, batch["aspects_mask"])


def task_losses(
    logits: TaskLogits, batch: Batch, weights: ClassWeights, *, label_smoothing: float
) -> dict[str, Tensor]:
    """The mean loss of each task over the reviews labelled for it; labels of a task add up."""
    sentiment, intensity, emotions, aspects = (values.float() for values in logits)
    by_review = functional.cross_entropy(
        sentiment,
        batch["sentiment"],
        weight=weights.sentiment,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    by_emotion = functional.binary_cross_entropy_with_logits(
        emotions, batch["emotions"], pos_weight=weights.emotions, reduction="none"
    )
    return {
        "sentiment": _masked_mean(by_review, batch["sentiment_mask"]),
        "intensity": _intensity_loss(intensity, batch, weights),
        "emotions": _masked_mean(by_emotion.sum(1), batch["emotions_mask"]),
        "aspects": _aspects_loss(aspects, batch, weights),
    }


def total_loss(losses: Mapping[str, Tensor], loss_weights: Mapping[Task, float]) -> Tensor:
    """The weighted sum that is minimised."""
    return torch.stack([losses[task] * weight for task, weight in loss_weights.items()]).sum()
