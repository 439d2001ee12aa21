"""Made-up batches with the lengths of real targets, padded or packed, and the work that is in them.

Lengths are drawn from the measured ones of matjip's gold targets: 777 training examples, prompt and
answer with the chat template, in tokens of Qwen2.5 (mean 283, longest 787, 35% of them answers).
Token ids are random: what they say changes nothing about the time.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, Final

import torch

QUANTILES: Final = (
    (0, 164),
    (5, 182),
    (10, 191),
    (20, 202),
    (30, 212),
    (40, 219),
    (50, 228),
    (60, 238),
    (70, 261),
    (80, 356),
    (90, 493),
    (95, 587),
    (99, 687),
    (100, 787),
)
"""(percent of the examples, tokens): so many have at most so many."""
ANSWER_SHARE: Final = 0.35
IGNORED: Final = -100


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        inputs: what the model is called with: ``input_ids`` and ``labels`` (rows, tokens), with
            ``attention_mask`` where rows are padded, ``position_ids`` where they are packed.
        lengths: of the examples in it.
        positions: tokens, padding included.
    """

    inputs: dict[str, Any]
    lengths: tuple[int, ...]
    positions: int

    @property
    def tokens(self) -> int:
        """Without padding."""
        return sum(self.lengths)


def draw_lengths(random: Random, quantiles: Sequence[tuple[float, int]]) -> Iterator[int]:
    """Lengths without end, straight lines between the quantiles."""
    edges = [percent for percent, _ in quantiles]
    spans = list(pairwise(quantiles))
    while True:
        percent = random.uniform(edges[0], edges[-1])
        (low, fewest), (high, most) = spans[min(bisect_right(edges, percent), len(spans)) - 1]
        yield round(fewest + (most - fewest) * (percent - low) / (high - low))


def padded_batches(
    random: Random, lengths: Iterator[int], *, count: int, positions: int, vocabulary: int
) -> list[Batch]:
    """Examples in the order they come, a row each, padded to the batch's longest.

    Args:
        random: of the token ids.
        lengths: of the examples; what is longer than ``positions`` is left out.
        count: of batches.
        positions: rows x longest stays within it.
        vocabulary: of the model.
    """
    batches: list[Batch] = []
    rows: list[int] = []
    while len(batches) < count:
        length = next(lengths)
        if length > positions:
            continue
        if rows and (len(rows) + 1) * max(*rows, length) > positions:
            batches.append(_padded(random, rows, vocabulary))
            rows = []
        rows.append(length)
    return batches


def packed_batches(
    random: Random,
    lengths: Iterator[int],
    *,
    count: int,
    positions: int,
    sequence: int,
    vocabulary: int,
) -> list[Batch]:
    """Sequences filled with whole examples, the first that fits; positions begin anew in each.

    Args:
        random: of the token ids and of the sequences' order.
        lengths: of the examples; what is longer than ``sequence`` is left out.
        count: of batches.
        positions: of a batch: so many ``sequence`` go into it.
        sequence: tokens of a row.
        vocabulary: of the model.
    """
    per_batch = max(1, positions // sequence)
    rows: list[list[int]] = []
    # Half as many again: sequences that are still filling at the end are left over.
    while len(rows) < count * per_batch * 1.5 + 1:
        length = next(lengths)
        if length > sequence:
            continue
        fitting = next((row for row in rows if sum(row) + length <= sequence), None)
        if fitting is None:
            rows.append([length])
        else:
            fitting.append(length)
    full = rows[: count * per_batch]
    random.shuffle(full)
    return [
        _packed(random, full[start : start + per_batch], sequence, vocabulary)
        for start in range(0, len(full), per_batch)
    ]


def useful_flops(batch: Batch, *, weights: int, per_weight: int, attention_width: int) -> float:
    """Floating-point operations that a step on a batch is worth, padding counted for nothing.

    Args:
        batch: whose examples are counted.
        weights: in matrices that every token goes through, the head among them, the embedding not.
        per_weight: and token: 6 where all weights are trained (2 forward, 4 backward); 4 where
            they are frozen, since their own gradients are then never computed.
        attention_width: layers x heads x head size. Each token attends to those before it in its
            own example: 2 products forward and 4 backward, half of the square.
    """
    products = per_weight * weights * batch.tokens
    attention = 6 * attention_width * sum(length**2 for length in batch.lengths)
    return float(products + attention)


def _ids(random: Random, count: int, vocabulary: int) -> list[int]:
    return random.choices(range(vocabulary), k=count)


def _labels(ids: Sequence[int], length: int) -> list[int]:
    """The answer alone is learnt: the last part of an example."""
    prompt = length - max(1, round(length * ANSWER_SHARE))
    return [IGNORED] * prompt + list(ids[prompt:length])


def _padded(random: Random, lengths: Sequence[int], vocabulary: int) -> Batch:
    width = max(lengths)
    shape = (len(lengths), width)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    mask = torch.zeros(shape, dtype=torch.long)
    for row, length in enumerate(lengths):
        words = _ids(random, length, vocabulary)
        ids[row, :length] = torch.tensor(words)
        labels[row, :length] = torch.tensor(_labels(words, length))
        mask[row, :length] = 1
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return Batch(inputs, tuple(lengths), ids.numel())


def _packed(random: Random, rows: Sequence[Sequence[int]], sequence: int, vocabulary: int) -> Batch:
    shape = (len(rows), sequence)
    ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    for row, lengths in enumerate(rows):
        start = 0
        # What is left at the end is an example of padding, of which nothing is learnt.
        for length in [*lengths, sequence - sum(lengths)]:
            if not length:
                continue
            end = start + length
            positions[row, start:end] = torch.arange(length)
            if end <= sum(lengths):
                words = _ids(random, length, vocabulary)
                ids[row, start:end] = torch.tensor(words)
                labels[row, start:end] = torch.tensor(_labels(words, length))
            start = end
    inputs = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return Batch(inputs, tuple(length for lengths in rows for length in lengths), ids.numel())
