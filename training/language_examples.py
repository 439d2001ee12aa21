"""Examples as a trainer reads them: token ids, and which of them are learnt.

Comes in: examples (data/targets.py) and a tokenizer with its chat template. Goes out: a row each,
with a mask over the assistant's words, and a report of the lengths. Nothing is cut: an example that
is longer than the limit goes to quarantine with its length.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.errors import DataUnfitError
from data.prompts import TASKS, Message
from data.quarantine import QuarantinedRow
from data.targets import Example

IGNORED: Final = -100
"""The label of a token that is not learnt, as torch's cross-entropy has it."""
_PERCENTILES: Final = {"p50": 50, "p95": 95, "p99": 99, "longest": 100}


@dataclass(frozen=True)
class Row:
    """One example.

    Attributes:
        input_ids: prompt and answer.
        assistant_masks: 1 where the assistant speaks, its end of turn with it.
    """

    input_ids: list[int]
    assistant_masks: list[int]


@dataclass(frozen=True)
class Rows:
    """Examples that fit, those that do not, and how long they all are.

    Attributes:
        report: per task and in all: count, tokens at percentiles, tokens of the answers, and the
            share of a padded batch of ``max_tokens`` that would be padding.
    """

    fit: list[Row]
    too_long: list[QuarantinedRow]
    report: dict[str, dict[str, float]]


def tokenise(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, max_tokens: int
) -> Rows:
    """Token rows of examples, in order.

    Args:
        tokenizer: with a chat template that marks what the assistant says.
        examples: what is to be learnt.
        max_tokens: of prompt and answer together.

    Raises:
        DataUnfitError: no example fits, or none has an answer that the template marks.
    """
    rows = [_row(tokenizer, example) for example in examples]
    too_long = [
        QuarantinedRow(
            row=number,
            review_id=example.about if example.task == "labels" else None,
            reason="target_too_long",
            detail=(
                f"{example.task} of {example.about!r} has {len(row.input_ids)} tokens, the limit "
                f"is {max_tokens}; raise tuning.max_tokens, or summarise fewer reviews"
            ),
            step="targets",
            source=example.model_dump(mode="json"),
        )
        for number, (example, row) in enumerate(zip(examples, rows, strict=True))
        if len(row.input_ids) > max_tokens
    ]
    fit = [row for row in rows if len(row.input_ids) <= max_tokens]
    if not fit:
        raise DataUnfitError(
            f"none of {len(rows)} examples fits in {max_tokens} tokens; raise tuning.max_tokens, "
            "or build targets from shorter reviews"
        )
    unmarked = sum(not any(row.assistant_masks) for row in fit)
    if unmarked:
        raise DataUnfitError(
            f"the chat template marks no answer in {unmarked} of {len(fit)} examples; put "
            "{% generation %} around the assistant's words"
        )
    return Rows(fit, too_long, length_report(examples, rows, max_tokens=max_tokens))


def length_report(
    examples: Sequence[Example], rows: Sequence[Row], *, max_tokens: int
) -> dict[str, dict[str, float]]:
    """Lengths in tokens, per task and in all; tasks without examples are left out."""
    report = {}
    for task in ("all", *TASKS):
        mine = [
            row
            for example, row in zip(examples, rows, strict=True)
            if task in {"all", example.task}
        ]
        if not mine:
            continue
        lengths = np.asarray([len(row.input_ids) for row in mine])
        report[task] = {
            "examples": float(len(mine)),
            **{name: float(np.percentile(lengths, at)) for name, at in _PERCENTILES.items()},
            "answer_tokens": float(np.mean([sum(row.assistant_masks) for row in mine])),
            "longer_than_limit": float((lengths > max_tokens).sum()),
            "padding_share": 1.0 - float(np.minimum(lengths, max_tokens).mean()) / max_tokens,
        }
    return report


def columns(rows: Iterable[Row]) -> dict[str, list[Any]]:
    """Rows as the columns of a dataset; only the assistant's words are learnt."""
    kept = list(rows)
    return {
        "input_ids": [row.input_ids for row in kept],
        "labels": [
            [token if said else IGNORED for token, said in zip(*row, strict=True)]
            for row in ((each.input_ids, each.assistant_masks) for each in kept)
        ],
    }


def _row(tokenizer: PreTrainedTokenizerBase, example: Example) -> Row:
    answer: Message = {"role": "assistant", "content": example.answer}
    answered: list[Any] = [*example.messages, answer]
    said: Any = tokenizer.apply_chat_template(
        answered,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return Row(list(said["input_ids"]), list(said["assistant_masks"]))
