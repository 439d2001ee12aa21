"""Where two models part ways."""

import shutil
from pathlib import Path

import pytest
import torch

from data.errors import EngineError
from data.examples import read_examples
from training.answer_scores import load_scored_model, load_tokenizer, prompt_ids, render_examples
from training.first_difference import (
    first_differing_block,
    first_differing_prompt,
    first_misread_prompt,
)


class Altered:
    """A model that is changed on its way: its head's logits, or one layer's weight."""

    def __init__(self, model, *, head=1.0):
        self.device, self._model, self._head = model.device, model, head

    def __call__(self, **given):
        found = self._model(**given)
        found.logits = found.logits * self._head
        return found


class Reader:
    """A server that reads prompts with a folder's tokenizer; the last one as told."""

    name = "server"

    def __init__(self, folder, examples, change):
        tokenizer = load_tokenizer(folder)
        self._ids = {each.messages[-1]["content"]: prompt_ids(tokenizer, each) for each in examples}
        self._last, self._change = examples[-1].messages[-1]["content"], change

    async def token_ids(self, messages):
        ids = self._ids[messages[-1]["content"]]
        return self._change(ids) if messages[-1]["content"] == self._last else ids


@pytest.fixture(scope="module")
def examples(language_targets):
    return read_examples(language_targets / "test.jsonl")[:4]


@pytest.fixture(scope="module")
def rendered(tiny_base, examples):
    tokenizer = load_tokenizer(tiny_base)
    return render_examples(tokenizer, examples, count=1, max_tokens=1024).rendered[0]


def test_a_head_that_differs_is_told_from_the_blocks(tiny_base, rendered):
    model = load_scored_model(tiny_base)
    found = first_differing_block(Altered(model), Altered(model, head=2.0), rendered)
    assert found == "hidden states are equal: the head differs"


@pytest.mark.parametrize("block", [0, 1])
def test_the_block_of_a_changed_weight_is_named(tiny_base, rendered, block):
    before, after = load_scored_model(tiny_base), load_scored_model(tiny_base)
    with torch.no_grad():
        after.model.layers[block].mlp.gate_proj.weight.mul_(1.5)
    found = first_differing_block(before, after, rendered)
    assert found.startswith(f"hidden states part at block {block} (relative difference 0 before it")


def test_equal_tokenizers_differ_nowhere(tiny_base, tiny_merged, examples):
    assert first_differing_prompt(tiny_base, tiny_merged, examples) is None


def test_a_prompt_that_only_goes_on_is_told(tiny_base, tmp_path, examples):
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + "{{- '!' -}}", encoding="utf-8")
    found = first_differing_prompt(tiny_base, folder, examples)
    assert found is not None
    assert f"the prompt of {examples[0].about!r} (labels)" in found
    assert "the prompt's end became" in found


def test_files_that_differ_without_a_prompt_differing_are_named(tiny_base, tmp_path, examples):
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    with (folder / "tokenizer.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    found = first_differing_prompt(tiny_base, folder, examples)
    assert found is not None
    assert "the tokenizers differ in ['tokenizer.json']" in found


def test_a_server_that_reads_every_prompt_alike_differs_nowhere(tiny_base, examples):
    assert first_misread_prompt(tiny_base, Reader(tiny_base, examples, list), examples) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids: [*ids[:3], 7, *ids[4:]], "from token 3 on: "),
        (lambda ids: ids[:-2], "became the prompt's end; serve the folder with its own tokenizer"),
    ],
)
def test_the_prompt_that_a_server_reads_otherwise_is_named(tiny_base, examples, change, message):
    found = first_misread_prompt(tiny_base, Reader(tiny_base, examples, change), examples)
    assert found.startswith("server reads other token ids in the prompt of ")
    assert repr(examples[-1].about) in found
    assert message in found


def test_a_server_that_does_not_say_is_told(tiny_base, examples):
    def refuse(ids):
        raise EngineError("no such model")

    found = first_misread_prompt(tiny_base, Reader(tiny_base, examples, refuse), examples)
    assert found == "server did not say how it reads the prompts: no such model"
