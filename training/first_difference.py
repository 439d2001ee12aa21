"""Where two models that should answer alike part ways: which token, which block."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data.errors import EngineError
from data.examples import Example
from data.manifest import file_sha256
from data.prompts import Message
from serving.language_folder import tokenizer_digest
from training.answer_scores import Rendered, prompt_ids
from training.stored_weights import TOKENIZER_FILES


class PromptReader(Protocol):
    """A server that says how it reads a prompt."""

    name: str

    async def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a prompt, ready for an answer."""
        ...


def first_misread_prompt(
    folder: Path, reader: PromptReader, examples: Sequence[Example]
) -> str | None:
    """Which prompt a server reads first as other token ids than a folder's; None: all alike."""
    tokenizer = _tokenizer(folder)

    async def read_all() -> list[list[int]]:
        return list(await asyncio.gather(*(reader.token_ids(e.messages) for e in examples)))

    try:
        said = asyncio.run(read_all())
    except EngineError as error:
        return f"{reader.name} did not say how it reads the prompts: {error}"
    for example, other in zip(examples, said, strict=True):
        one = prompt_ids(tokenizer, example)
        if one != other:
            at = _first_place(one, other)
            return (
                f"{reader.name} reads other token ids in the prompt of {example.about!r} "
                f"({example.task}) from token {at} on: {_shown(tokenizer, one, at)} became "
                f"{_shown(tokenizer, other, at)}; serve the folder with its own tokenizer and "
                "chat template"
            )
    return None


def first_differing_prompt(before: Path, after: Path, examples: Iterable[Example]) -> str | None:
    """What differs first between two folders' token ids of prompts; None where nothing does.

    Raises:
        ArtifactError: a folder has no tokenizer, or no chat template.
    """
    equal = tokenizer_digest(before) == tokenizer_digest(after)
    first, second = (_tokenizer(folder) for folder in (before, after))
    for example in examples:
        one, other = prompt_ids(first, example), prompt_ids(second, example)
        if one != other:
            at = _first_place(one, other)
            return (
                f"the prompt of {example.about!r} ({example.task}) has other token ids from token "
                f"{at} on: {_shown(first, one, at)} became {_shown(second, other, at)}"
            )
    if equal:
        return None
    files = [name for name in TOKENIZER_FILES if _differs(before / name, after / name)]
    return f"the tokenizers differ in {files!r}, though these prompts' token ids are equal"


@torch.inference_mode()
def first_differing_block(before: Any, after: Any, rendered: Rendered) -> str:
    """The block after which two models' hidden states part most, relative to the one before it."""
    states = []
    for model in (before, after):
        ids = torch.tensor([rendered.ids], device=model.device)
        found = model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
        states.append([state[0].float().cpu() for state in found])
    apart = [
        float((one - other).norm() / one.norm().clamp_min(1e-12))
        for one, other in zip(*states, strict=True)
    ]
    rises = [here - earlier for earlier, here in zip([0.0, *apart], apart, strict=False)]
    at = max(range(len(rises)), key=rises.__getitem__)
    names = ["the embeddings", *(f"block {number}" for number in range(len(apart) - 1))]
    if apart[at] == 0.0:
        return "hidden states are equal: the head differs"
    was = apart[at - 1] if at else 0.0
    return (
        f"hidden states part at {names[at]} (relative difference {was:.2g} before it, "
        f"{apart[at]:.2g} after)"
    )


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # Not load_tokenizer: a template that it refuses is what is looked for here.
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True
    )
    return tokenizer


def _first_place(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _shown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], at: int) -> str:
    return f"{ids[at]} {tokenizer.decode([ids[at]])!r}" if at < len(ids) else "the prompt's end"


def _differs(one: Path, other: Path) -> bool:
    if one.is_file() and other.is_file():
        return file_sha256(one) != file_sha256(other)
    return one.is_file() != other.is_file()
