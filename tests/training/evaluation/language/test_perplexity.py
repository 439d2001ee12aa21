import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from data.errors import ArtifactError, MetricError
from data.manifest import write_manifest
from data.prompts import chat_template
from serving.language_folder import LANGUAGE_MODEL_KIND, tokenizer_digest
from training.evaluation.language.evaluation import evaluate_language_models
from training.evaluation.language.gold import Gold
from training.evaluation.language.perplexity import perplexity_parts

VOCABULARY = 400


@pytest.fixture(scope="module")
def folder(gold: Gold, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of Qwen3's architecture, sealed as a language model is."""
    out = tmp_path_factory.mktemp("model") / "model"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [each.answer for each in gold.examples],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template(),
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            intermediate_size=32,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    model.save_pretrained(out)
    fast.save_pretrained(out)
    facts = {"role": "merged", "format": "float32", "tokenizer_digest": tokenizer_digest(out)}
    write_manifest(out, LANGUAGE_MODEL_KIND, facts)
    return out


def few(gold: Gold) -> Gold:
    """One example of each task."""
    first = {each.task: each for each in reversed(gold.examples)}
    return replace(gold, examples=tuple(first.values()))


def test_the_loss_is_of_the_answers_tokens_alone(folder: Path, gold: Gold) -> None:
    asked = few(gold)
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    parts = perplexity_parts(folder, asked, [each.answer for each in asked.examples])
    for example, found in zip(asked.examples, parts, strict=True):
        tokens = len(tokenizer(example.answer)["input_ids"])
        nats, count = found["nll"]
        # The answer is followed by the mark that ends its turn.
        assert tokens < count <= tokens + 2
        # Random weights know nothing: about as surprised as by a token drawn from all.
        assert math.exp(nats / count) == pytest.approx(VOCABULARY, rel=0.25)
        assert found["nll_other"] == found["nll"]


def test_it_is_the_models_own_loss(folder: Path, gold: Gold) -> None:
    example = gold.examples[0]
    asked = replace(gold, examples=(example,))
    ((nats, count),) = [parts["nll"] for parts in perplexity_parts(folder, asked, [example.answer])]
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    turns: Any = [*example.messages, {"role": "assistant", "content": example.answer}]
    found = tokenizer.apply_chat_template(
        turns, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
    )
    model = Qwen3ForCausalLM.from_pretrained(folder)
    mask = torch.as_tensor(found["assistant_masks"]).bool().reshape(found["input_ids"].shape)
    labels = found["input_ids"].masked_fill(~mask, -100)
    loss = model(input_ids=found["input_ids"], labels=labels).loss.detach()
    assert nats / count == pytest.approx(float(loss), rel=1e-4)


def test_another_answer_has_another_loss(folder: Path, gold: Gold) -> None:
    asked = few(gold)
    parts = perplexity_parts(folder, asked, ['{"overall":"다른 집 이야기"}'] * len(asked.examples))
    assert all(found["nll"] != found["nll_other"] for found in parts)


def test_an_example_beyond_the_context_is_an_error_not_cut(folder: Path, gold: Gold) -> None:
    with pytest.raises(MetricError, match="longer than 50 tokens"):
        perplexity_parts(folder, few(gold), ["{}"] * 4, context=50)


def test_a_folder_that_could_run_code_is_refused(folder: Path, gold: Gold, tmp_path: Path) -> None:
    unsafe = tmp_path / "model"
    unsafe.mkdir()
    for path in folder.iterdir():
        (unsafe / path.name).write_bytes(path.read_bytes())
    (unsafe / "weights.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match="can run code"):
        perplexity_parts(unsafe, few(gold), ["{}"] * 4)


def test_the_evaluation_gives_it_with_an_interval_and_the_folders_digest(
    folder: Path, town: tuple[Path, Path], engine: Any, says_gold: Any, tmp_path: Path
) -> None:
    split, targets = town
    evaluate_language_models(
        targets,
        {"tiny": engine("tiny", says_gold), "remote": engine("remote", says_gold)},
        tmp_path / "out",
        split=split,
        repeats=1,
        free=0,
        restaurants=False,
        folders={"tiny": folder},
        resamples=100,
    )
    result = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    cells = result["metrics"]["tiny"]
    assert cells["perplexity"]["low"] <= cells["perplexity"]["value"] <= cells["perplexity"]["high"]
    assert cells["perplexity_other"]["value"] != cells["perplexity"]["value"]
    assert cells["perplexity"]["n"] == result["n"]["examples"]
    digest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["digest"]
    assert result["models"]["tiny"]["digest"] == digest
    assert result["models"]["tiny"]["format"] == "float32"
    assert "not asked" in result["metrics"]["remote"]["perplexity"]["reason"]
