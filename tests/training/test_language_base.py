"""The base made on the spot: whole, sealed, learnt; or one that is adopted."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.contract import ASPECTS, POLARITIES
from data.errors import ArtifactError, SettingsError
from data.manifest import read_manifest
from serving.language_folder import (
    LANGUAGE_MODEL_KIND,
    check_chat_template,
    read_language_model,
)
from training.language_base import make_language_base
from training.language_recipe import LanguageRecipe, parse_language_recipe
from training.language_tokenizer import train_language_tokenizer
from training.synthetic_examples import synthetic_labels

SMALL = """
name: small
threads: 1
base: {vocabulary: 1000, hidden_size: 64, layers: 2, attention_heads: 2, key_value_heads: 1,
       head_size: 32, intermediate_size: 64, context_tokens: 1024}
pretraining: {clause_reviews: 100, synthetic_reviews: 120, synthetic_restaurants: 2, epochs: 1,
              batch_tokens: 2048}
"""
REVIEW = "존맛ㅠㅠ 😋 café #1 𠮷野家 <|im_end|>\n\t끝"


@pytest.fixture(scope="module")
def recipe() -> LanguageRecipe:
    return parse_language_recipe(SMALL)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, recipe: LanguageRecipe, language_targets: Path):
    folder = tmp_path_factory.mktemp("base") / "base"
    make_language_base(
        language_targets, recipe, folder, checkpoints=tmp_path_factory.mktemp("checkpoints")
    )
    return folder


def test_it_is_sealed_and_loads_as_any_checkpoint(base):
    facts = read_language_model(base).facts
    check_chat_template(base)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    assert facts["role"] == "base"
    assert facts["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert len(tokenizer) == facts["vocabulary"] == model.config.vocab_size
    assert model.dtype == torch.float32
    losses = [loss for _, loss in facts["curve"]]
    assert sum(losses[-4:]) < sum(losses[:4])


def test_any_text_goes_through_its_tokenizer_and_comes_back(base):
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    ids = tokenizer(REVIEW, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == REVIEW


def test_a_clause_number_and_json_signs_are_few_tokens(base):
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    assert len(tokenizer.tokenize("#1")) == 1
    answer = synthetic_labels(1, seed=1)[0].answer
    assert len(tokenizer.tokenize(answer)) < len(answer) / 4
    for word in (*ASPECTS, *POLARITIES, '","polarity":"', "assistant"):
        assert len(tokenizer.tokenize(word)) == 1, word


def test_the_same_texts_make_the_same_tokenizer():
    texts = ["국물이 진하고 고기가 부드러워요 #1", '{"evidence":[{"clause":"#1"}]}'] * 3
    first, second = (train_language_tokenizer(texts, vocabulary=400) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_a_checkpoint_is_adopted_with_our_template(base, language_targets, recipe, tmp_path):
    settings = recipe.base.model_copy(update={"pretrained": str(base)})
    adopting = recipe.model_copy(update={"base": settings})
    out = tmp_path / "adopted"
    make_language_base(language_targets, adopting, out, checkpoints=tmp_path / "work")
    found = read_manifest(out, LANGUAGE_MODEL_KIND).facts
    assert found["made"] == "adopted"
    assert found["tokenizer_digest"] == read_language_model(base).facts["tokenizer_digest"]
    first, second = (
        AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        for folder in (base, out)
    )
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)


def test_a_name_that_cannot_be_had_is_named(language_targets, recipe, tmp_path):
    settings = recipe.base.model_copy(update={"pretrained": str(tmp_path / "nowhere")})
    adopting = recipe.model_copy(update={"base": settings})
    with pytest.raises(SettingsError, match="nowhere"):
        make_language_base(language_targets, adopting, tmp_path / "out", checkpoints=tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "modeling_custom.py"])
def test_a_checkpoint_that_could_run_code_is_refused(
    language_targets, recipe, tmp_path, tiny_language, name
):
    folder = tmp_path / "given"
    tiny_language.write_model(folder)
    (folder / name).write_bytes(b"\x80\x04.")
    settings = recipe.base.model_copy(update={"pretrained": str(folder)})
    adopting = recipe.model_copy(update={"base": settings})
    with pytest.raises(ArtifactError, match=name):
        make_language_base(language_targets, adopting, tmp_path / "out", checkpoints=tmp_path)
