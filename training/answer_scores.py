"""Answers scored token by token: what a language model thinks of answers that are given to it.

Teacher-forced: a model reads a prompt and its target, and its logits are taken where the target's
own tokens stand. So two models are compared on the same tokens, and one wrong token harms no other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data.errors import ArtifactError, DataUnfitError
from data.examples import Example
from data.prompts import TASKS
from serving.language_folder import check_chat_template
from serving.language_model import load_language_model


@dataclass(frozen=True)
class Rendered:
    """One example as a model reads it.

    Attributes:
        example: what it was rendered from.
        text: prompt and answer, with the marks of the turns.
        ids: its tokens.
        prompt_tokens: how many of them are the prompt.
        answer: positions of the answer's tokens, its end mark included.
    """

    example: Example
    text: str
    ids: list[int]
    prompt_tokens: int
    answer: range


@dataclass(frozen=True)
class Picked:
    """Examples that fit a context, and whom those are about that do not."""

    rendered: list[Rendered]
    too_long: list[str]


class Agreement(BaseModel):
    """How far one model's scores of answers are from another's, over all answer tokens.

    Attributes:
        max_abs_diff: largest difference of any logit.
        top1_agreement: share of tokens where both hold the same one likeliest.
        kl_mean: mean Kullback-Leibler divergence of the second from the first, in nats.
        perplexity_before: of the targets, under the first model.
        perplexity_after: under the second.
    """

    model_config = ConfigDict(frozen=True)

    examples: int
    answer_tokens: int
    max_abs_diff: float
    top1_agreement: float
    kl_mean: float
    perplexity_before: float
    perplexity_after: float


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint.

    Raises:
        ArtifactError: its chat template does not mark what the assistant says.
    """
    check_chat_template(folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    return tokenizer


def load_scored_model(folder: Path) -> Any:
    """A sealed model, float or quantised, in its own type, on the GPU if there is one.

    A quantised one computes what its format says with dequantised weights: its answers are the
    format's, its speed is not.

    Raises:
        ArtifactError: the folder is not whole, could run code, or lacks a weight.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_language_model(folder, device=device).model


def pick_examples(examples: Iterable[Example], seed: int) -> list[Example]:
    """Examples in a drawn order, the tasks in turn, so that rare tasks are not drowned."""
    drawn = list(examples)
    Random(seed).shuffle(drawn)  # noqa: S311  # no secret: a repeatable choice
    by_task = [[each for each in drawn if each.task == task] for task in TASKS]
    return [each for turn in zip_longest(*by_task) for each in turn if each is not None]


def render_examples(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], *, count: int, max_tokens: int
) -> Picked:
    """Render prompts with their answers, as training does; the first ``count`` that fit.

    Args:
        tokenizer: with its chat template.
        examples: what to render.
        count: how many are wanted.
        max_tokens: the model's context; what is longer is left out whole and named, never cut.

    Raises:
        DataUnfitError: no example fits.
        ArtifactError: the chat template shows serving another prompt than training.
    """
    fitting: list[Rendered] = []
    too_long: list[str] = []
    for example in examples:
        if len(fitting) == count:
            break
        rendered = _rendered(tokenizer, example)
        if len(rendered.ids) <= max_tokens:
            fitting.append(rendered)
        else:
            too_long.append(example.about)
    if not fitting:
        raise DataUnfitError(
            f"none of {len(examples)!r} examples fits a context of {max_tokens!r} tokens; "
            "take a model with a longer context, or targets that have examples"
        )
    return Picked(fitting, too_long)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """The tokens that a model is asked with."""
    found: Any = tokenizer.apply_chat_template(
        _turns(example), add_generation_prompt=True, return_dict=True
    )
    return list(found["input_ids"])


def _turns(example: Example) -> list[dict[str, str]]:
    return [{"role": each["role"], "content": each["content"]} for each in example.messages]


def _rendered(tokenizer: PreTrainedTokenizerBase, example: Example) -> Rendered:
    turns = [*_turns(example), {"role": "assistant", "content": example.answer}]
    found: Any = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True
    )
    ids, mask = list(found["input_ids"]), list(found["assistant_masks"])
    prompt = prompt_ids(tokenizer, example)
    if ids[: len(prompt)] != prompt or not any(mask):
        raise ArtifactError(
            f"the chat template renders the prompt of {example.about!r} ({example.task}) otherwise "
            "before an answer than for generation, so serving would ask what was never taught; "
            "use data/chat_template.jinja"
        )
    end = len(mask) - mask[::-1].index(1)
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    return Rendered(example, text, ids, len(prompt), range(mask.index(1), end))


@torch.inference_mode()
def answer_logits(model: Any, rendered: Rendered) -> Tensor:
    """Logits that predict the answer's tokens, float32, (answer tokens, vocabulary)."""
    ids = torch.tensor([rendered.ids], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits[rendered.answer.start - 1 : rendered.answer.stop - 1].float()


class Comparison:
    """Adds up how two models score the same answers, an example at a time."""

    def __init__(self) -> None:
        self.worst: tuple[float, Rendered] | None = None
        self._examples = self._tokens = self._same = 0
        self._largest = self._kl = self._before = self._after = 0.0

    def add(self, rendered: Rendered, before: Tensor, after: Tensor) -> None:
        """Add one example's logits, each (answer tokens, vocabulary)."""
        after = after.to(before.device)
        first, second = before.log_softmax(-1), after.log_softmax(-1)
        gold = torch.tensor([rendered.ids[at] for at in rendered.answer], device=before.device)
        largest = float((before - after).abs().max())
        if self.worst is None or largest > self.worst[0]:
            self.worst = (largest, rendered)
        self._largest = max(self._largest, largest)
        self._examples += 1
        self._tokens += len(gold)
        self._same += int((before.argmax(-1) == after.argmax(-1)).sum())
        self._kl += float(kl_div(second, first, reduction="sum", log_target=True))
        self._before -= float(first.gather(1, gold[:, None]).sum())
        self._after -= float(second.gather(1, gold[:, None]).sum())

    def agreement(self) -> Agreement:
        """What was added so far.

        Raises:
            ArtifactError: nothing was.
        """
        if not self._tokens:
            raise ArtifactError("there is no example to compare on; pass targets that have some")
        return Agreement(
            examples=self._examples,
            answer_tokens=self._tokens,
            max_abs_diff=self._largest,
            top1_agreement=self._same / self._tokens,
            kl_mean=self._kl / self._tokens,
            perplexity_before=float(torch.tensor(self._before / self._tokens).exp()),
            perplexity_after=float(torch.tensor(self._after / self._tokens).exp()),
        )
