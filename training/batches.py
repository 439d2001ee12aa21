"""Labelled reviews to padded batches of windows, with a target and a mask for each task.

A review without a label for a task has mask 0 there and adds nothing to that task's loss.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data.contract import ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS, Label
from serving.windows import lay_windows, pad, special_token_id
from training.tokenizer import segment

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Targets:
    """Targets of ``n`` reviews as arrays; ``*_mask`` is 1 where the task was labelled.

    Attributes:
        sentiment: (n,), index into SENTIMENTS.
        intensity: (n,), index into INTENSITIES.
        emotions: (n, 8), 0 or 1.
        aspects: (n, 6, 3): mentioned, positive, negative; 0 or 1.
    """

    sentiment: NDArray[np.int64]
    sentiment_mask: NDArray[np.float32]
    intensity: NDArray[np.int64]
    intensity_mask: NDArray[np.float32]
    emotions: NDArray[np.float32]
    emotions_mask: NDArray[np.float32]
    aspects: NDArray[np.float32]
    aspects_mask: NDArray[np.float32]

    def rows(self, index: NDArray[np.int64]) -> Batch:
        """Tensors of the given reviews."""
        return {name: torch.from_numpy(values[index]) for name, values in vars(self).items()}


def targets_of(labels: Sequence[Label]) -> Targets:
    """Targets of labels, in their order."""
    n = len(labels)
    emotions = np.zeros((n, len(EMOTIONS)), dtype=np.float32)
    aspects = np.zeros((n, len(ASPECTS), 3), dtype=np.float32)
    for row, label in enumerate(labels):
        for emotion in label.emotions or ():
            emotions[row, EMOTIONS.index(emotion)] = 1.0
        for aspect, polarity in (label.aspects or {}).items():
            aspects[row, ASPECTS.index(aspect)] = (
                1.0,
                float(polarity in {"positive", "mixed"}),
                float(polarity in {"negative", "mixed"}),
            )

    def labelled(task: str) -> NDArray[np.float32]:
        return np.asarray([getattr(label, task) is not None for label in labels], np.float32)

    return Targets(
        sentiment=np.asarray([SENTIMENTS.index(x.sentiment or "neutral") for x in labels]),
        sentiment_mask=labelled("sentiment"),
        intensity=np.asarray([INTENSITIES.index(x.intensity or 0) for x in labels]),
        intensity_mask=labelled("intensity"),
        emotions=emotions,
        emotions_mask=labelled("emotions"),
        aspects=aspects,
        aspects_mask=labelled("aspects"),
    )


class ReviewTokens(Dataset[int]):
    """Token ids of reviews; re-segmented at the start of each epoch when ``dropout`` is set."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], *, dropout: float = 0.0):
        """Tokenise once; memory is about 60 bytes a token."""
        self._tokenizer = tokenizer
        self._texts = list(texts)
        self._dropout = dropout
        self.ids = segment(tokenizer, self._texts)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        return index

    def resegment(self) -> None:
        """Cut the texts anew, at random, so that a model does not learn single segmentations."""
        if self._dropout:
            self.ids = segment(self._tokenizer, self._texts, dropout=self._dropout)


class TokenBudgetSampler(Sampler[list[int]]):
    """Batches of reviews of like length whose padded tokens stay within a budget.

    The order depends on seed and epoch alone, so a run that is resumed sees the same batches.
    """

    def __init__(self, tokens: ReviewTokens, *, budget: int, longest: int, overlap: int, seed: int):
        """Plan batches of at most ``budget`` tokens, in windows as ``lay_windows`` lays them."""
        self._tokens = tokens
        self._step = longest - 2 - overlap
        self._budget = budget
        self._longest = longest
        self._seed = seed
        self._epoch = 0
        self._length = len(self._plan(0))

    def _plan(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng((self._seed, epoch))
        sizes = np.asarray([len(ids) + 2 for ids in self._tokens.ids])
        order = np.argsort(sizes + random.uniform(0, 3.0, len(sizes)), kind="stable")
        batches: list[list[int]] = []
        batch: list[int] = []
        width, used = 0, 0
        for row in order:
            windows = 1 + -(-max(int(sizes[row]) - self._longest, 0) // self._step)
            wide = max(width, min(int(sizes[row]), self._longest))
            if batch and wide * (used + windows) > self._budget:
                batches.append(batch)
                batch, used, wide = [], 0, min(int(sizes[row]), self._longest)
            batch.append(int(row))
            width, used = wide, used + windows
        batches.append(batch)
        random.shuffle(batches)
        return batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        self._tokens.resegment()
        # A re-segmented epoch may plan a few batches more or less; the schedule counts on a
        # constant number, so the plan is cut or begun again to fit.
        plan = self._plan(self._epoch)
        self._epoch += 1
        yield from (plan[i % len(plan)] for i in range(self._length))


@dataclass
class Collator:
    """Turns review numbers into a batch: windows, their weights, targets, masked tokens.

    Attributes:
        subwords: the tokenizer; transformers would try to save one named so.
        masked_share: share of tokens hidden behind [MASK].
        masked_targets: also return what was hidden, for the masked-token loss.
    """

    tokens: ReviewTokens
    targets: Targets | None
    subwords: Tokenizer
    max_tokens: int
    overlap_tokens: int
    masked_share: float
    masked_targets: bool = False

    def __post_init__(self) -> None:
        self._cls = special_token_id(self.subwords, "[CLS]")
        self._sep = special_token_id(self.subwords, "[SEP]")
        self._pad = special_token_id(self.subwords, "[PAD]")
        self._mask = special_token_id(self.subwords, "[MASK]")

    def __call__(self, rows: Sequence[int]) -> Batch:
        """The batch of the given reviews."""
        windows = lay_windows(
            [self.tokens.ids[row] for row in rows],
            cls=self._cls,
            sep=self._sep,
            max_tokens=self.max_tokens,
            overlap_tokens=self.overlap_tokens,
        )
        ids, mask = map(torch.from_numpy, pad(windows.ids, self._pad))
        batch = {
            "attention_mask": mask,
            "text_index": torch.from_numpy(windows.text_index),
            "window_weights": torch.from_numpy(windows.weights),
        }
        ordinary = mask.bool() & (ids != self._cls) & (ids != self._sep)
        hidden = ordinary & (torch.rand(ids.shape) < self.masked_share)
        if self.masked_targets:
            batch["masked_positions"] = hidden.flatten().nonzero().squeeze(-1)
            batch["masked_ids"] = ids[hidden]
        batch["input_ids"] = ids.masked_fill(hidden, self._mask)
        if self.targets is not None:
            batch |= self.targets.rows(np.asarray(rows))
        return batch
