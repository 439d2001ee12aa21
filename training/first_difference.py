"""Where two models that should answer alike part ways: which token, which block."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data.examples import Example
from data.manifest import file_sha256
from serving.language_folder import tokenizer_digest
from training.answer_scores import Rendered, prompt_ids
from training.stored_weights import TOKENIZER_FILES


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
