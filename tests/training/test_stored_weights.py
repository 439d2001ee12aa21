"""Headers of checkpoints, and tokenizers copied as they are."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import ArtifactError
from serving.language_folder import tokenizer_digest
from training.stored_weights import (
    StoredTensor,
    copy_tokenizer,
    float_format,
    refuse_quantised,
    stored_tensors,
    weight_bytes,
    weight_files,
)


def test_shards_are_read_together(tmp_path):
    save_file({"a": torch.zeros(2, 3, dtype=torch.int8)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "model-2.safetensors")
    assert stored_tensors(tmp_path) == {
        "a": StoredTensor("I8", (2, 3)),
        "b": StoredTensor("BF16", (4,)),
    }
    assert weight_bytes(tmp_path) == sum(f.stat().st_size for f in tmp_path.iterdir())


def test_no_weights_are_said(tmp_path):
    with pytest.raises(ArtifactError, match="has no safetensors file"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_a_damaged_file_is_said(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        stored_tensors(tmp_path)


def test_the_format_is_what_is_stored(tiny_base, tmp_path):
    assert float_format(tiny_base) == "float32"
    weights = load_file(tiny_base / "model.safetensors")
    save_file({n: w.bfloat16() for n, w in weights.items()}, tmp_path / "model.safetensors")
    assert float_format(tmp_path) == "bfloat16"
    save_file({n: w.half() for n, w in weights.items()}, tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=r"\['F16'\], expected one of"):
        float_format(tmp_path)


def test_a_quantised_checkpoint_is_refused(tiny_base, tiny_w8a8):
    refuse_quantised(tiny_base)
    with pytest.raises(ArtifactError, match="'compressed-tensors'"):
        refuse_quantised(tiny_w8a8)


def test_a_tokenizer_is_copied_byte_for_byte_and_leaves_nothing_old(tiny_base, tmp_path):
    (tmp_path / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    assert copy_tokenizer(tiny_base, tmp_path) == tokenizer_digest(tiny_base)
    assert not (tmp_path / "special_tokens_map.json").exists()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_bytes() == (tiny_base / name).read_bytes()


def test_a_tokenizer_without_its_template_is_refused(tiny_base, tmp_path):
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ArtifactError, match=r"lacks \['chat_template\.jinja'\]"):
        copy_tokenizer(folder, tmp_path)
