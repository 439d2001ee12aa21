"""Makes small language-model folders for tests: a random Qwen3, its INT8, and adapters for it.

Loaded by path (`runpy.run_path`): tests are no package.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from data.manifest import Manifest, read_manifest, start_artifact, write_manifest
from data.prompts import INSTRUCTIONS, SYSTEM, chat_template
from serving.language_folder import ADAPTER_KIND, LANGUAGE_MODEL_KIND, tokenizer_digest

TEXTS = (
    SYSTEM,
    *INSTRUCTIONS.values(),
    "국물이 진하고 고기가 부드러워요 #1 직원이 불친절했어요 #2 대기가 길어요 #3",
    '{"evidence":[{"clause":"#1","aspect":"food","polarity":"positive"}],"aspects":{"food":"absent"',
    '{"bullets":[{"evidence":["#1","#2"],"polarity":"negative","text":"가격이 비싸다"}],"sentence"',
)
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def write_tokenizer(folder: Path, texts: Sequence[str] = TEXTS, vocabulary: int = 600) -> int:
    """Byte-level BPE with ChatML's marks and the house's chat template; returns its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template(),
    ).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def seal(folder: Path, **facts: Any) -> Manifest:
    """Write a language model's manifest."""
    said = {"role": "base", "format": "float32", "tokenizer_digest": tokenizer_digest(folder)}
    return write_manifest(folder, LANGUAGE_MODEL_KIND, said | facts)


def write_model(folder: Path, *, seed: int = 1, layers: int = 2, context: int = 1024) -> Manifest:
    """A random Qwen3, float32, about 100 thousand weights."""
    start_artifact(folder)
    vocabulary = write_tokenizer(folder)
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        intermediate_size=128,
        tie_word_embeddings=True,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        # Ten times the usual: small random weights answer every prompt alike.
        initializer_range=0.2,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return seal(folder)


def write_quantized(folder: Path, base: Path, scheme: str = "W8A8") -> Manifest:
    """A model's INT8, by llm-compressor, without calibration."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    start_artifact(folder)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    recipe = QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])
    oneshot(model=model, recipe=[recipe])
    model.save_pretrained(folder, save_compressed=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy2(base / name, folder / name)
    return seal(
        folder,
        role="quantized",
        format={"FP8_DYNAMIC": "fp8"}.get(scheme, scheme.lower()),
        parent_digest=read_manifest(base).digest,
    )


def write_adapter(
    folder: Path, base: Path, *, seed: int = 2, rank: int = 8, **facts: Any
) -> Manifest:
    """A random adapter that changes what its base says."""
    from peft import LoraConfig, get_peft_model

    start_artifact(folder)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "down_proj"]
    )
    laid = get_peft_model(model, config)
    for name, weight in laid.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    laid.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    digest = tokenizer_digest(base)
    said = {"base_digest": read_manifest(base).digest, "tokenizer_digest": digest}
    return write_manifest(folder, ADAPTER_KIND, said | facts)


def write_family(folder: Path, *, seed: int) -> None:
    """base, int8, first and second: a model, its INT8 by llm-compressor, two adapters."""
    write_model(folder / "base", seed=seed)
    write_quantized(folder / "int8", folder / "base")
    write_adapter(folder / "first", folder / "base", seed=2)
    write_adapter(folder / "second", folder / "base", seed=3)
