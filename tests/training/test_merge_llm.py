"""Merging: equal to what was trained, and never into a quantised base."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from data.errors import ArtifactError, ExportError
from data.manifest import MANIFEST_NAME, read_manifest, write_manifest
from serving.language_folder import (
    ADAPTER_KIND,
    LANGUAGE_MODEL_KIND,
    read_language_model,
    tokenizer_digest,
)
from training.merge_llm import load_adapted, merge_adapter, trained_over_nf4
from training.nf4 import load_nf4
from training.stored_weights import stored_tensors

IDS = torch.arange(3, 67)[None]


@torch.inference_mode()
def logits(model):
    return model.eval()(IDS).logits


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def resealed(folder, **facts):
    """A copy's manifest, written anew after the copy was changed."""
    old = read_manifest_unchecked(folder)
    (folder / MANIFEST_NAME).unlink()
    return write_manifest(folder, old["kind"], old["facts"] | facts)


def read_manifest_unchecked(folder):
    return json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))


@pytest.fixture
def adapter(tiny_adapter, tmp_path):
    return Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))


@pytest.fixture
def base(tiny_base, tmp_path):
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def test_it_answers_like_base_and_adapter(tiny_base, tiny_adapter, tiny_merged):
    adapted = logits(PeftModel.from_pretrained(load(tiny_base), tiny_adapter))
    merged = logits(load(tiny_merged))
    assert float((merged - adapted).abs().max()) < 1e-4
    assert float((merged - logits(load(tiny_base))).abs().max()) > 0.1


def test_through_nf4_it_answers_like_what_was_trained(tiny_base, tiny_adapter, tmp_path):
    facts = merge_adapter(tiny_adapter, tiny_base, tmp_path / "out", through_nf4=True).facts
    merged = logits(load(tmp_path / "out"))
    in_nf4 = logits(
        PeftModel.from_pretrained(load_nf4(tiny_base, compute_dtype=torch.float32), tiny_adapter)
    )
    dequantised = logits(load_adapted(tiny_adapter, tiny_base, through_nf4=True))
    in_float = logits(load_adapted(tiny_adapter, tiny_base, through_nf4=False))
    assert float((merged - in_nf4).abs().max()) < 1e-4
    assert float((merged - dequantised).abs().max()) < 1e-4
    assert float((merged - in_float).abs().max()) > 0.1
    assert facts["through_nf4"] is True


def test_the_folder_is_a_whole_float_model(tiny_base, tiny_adapter, tiny_merged):
    manifest = read_language_model(tiny_merged)
    assert (
        manifest.facts
        | {
            "role": "merged",
            "format": "float32",
            "base_digest": read_manifest(tiny_base).digest,
            "adapter_digest": read_manifest(tiny_adapter).digest,
            "tokenizer_digest": tokenizer_digest(tiny_base),
            "through_nf4": False,
            "merged_modules": 2 * 3,
        }
        == manifest.facts
    )
    assert stored_tensors(tiny_merged) == stored_tensors(tiny_base)
    assert {"config.json", "generation_config.json", "chat_template.jinja"} <= set(manifest.files)
    assert tokenizer_digest(tiny_merged) == tokenizer_digest(tiny_base)


@pytest.mark.parametrize("nf4", [True, False])
def test_a_bfloat16_base_stays_bfloat16(base, adapter, tmp_path, nf4):
    weights = {n: w.bfloat16() for n, w in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}), encoding="utf-8")
    digest = resealed(base, format="bfloat16").digest
    resealed(adapter, base_digest=digest)
    facts = merge_adapter(adapter, base, tmp_path / "out", through_nf4=nf4).facts
    assert facts["format"] == "bfloat16"
    assert {each.dtype for each in stored_tensors(tmp_path / "out").values()} == {"BF16"}


def test_how_it_was_trained_decides(adapter, tiny_base, tmp_path):
    resealed(adapter, quantized_base="nf4")
    assert merge_adapter(adapter, tiny_base, tmp_path / "out").facts["through_nf4"] is True


@pytest.mark.parametrize("said", [None, "int8"])
def test_an_adapter_that_does_not_say_how_it_was_trained_must_be_told(adapter, tiny_base, said):
    manifest = resealed(adapter, quantized_base=said)
    with pytest.raises(ArtifactError, match=f"'quantized_base' is {said!r}.*through_nf4=True"):
        trained_over_nf4(manifest)


def test_the_same_merge_has_the_same_digest(tiny_base, tiny_adapter, tiny_merged, tmp_path):
    again = merge_adapter(tiny_adapter, tiny_base, tmp_path / "out")
    assert again.digest == read_manifest(tiny_merged).digest


def test_it_never_merges_into_a_quantised_base(adapter, tiny_w8a8, tmp_path):
    resealed(adapter, base_digest=read_manifest(tiny_w8a8).digest)
    with pytest.raises(ArtifactError, match=r"is quantised .*'compressed-tensors'"):
        merge_adapter(adapter, tiny_w8a8, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_nf4_checkpoint_is_a_quantised_base_too(adapter, tiny_base, tmp_path):
    folder = Path(shutil.copytree(tiny_base, tmp_path / "nf4"))
    load_nf4(tiny_base, compute_dtype=torch.float32).save_pretrained(folder)
    resealed(adapter, base_digest=resealed(folder).digest)
    with pytest.raises(ArtifactError, match=r"is quantised .*'bitsandbytes'"):
        merge_adapter(adapter, folder, tmp_path / "out")


def test_an_adapter_for_another_base_is_refused(tiny_language, tiny_adapter, tmp_path):
    tiny_language.write_model(tmp_path / "other", seed=7)
    with pytest.raises(ArtifactError, match="is an adapter for the base"):
        merge_adapter(tiny_adapter, tmp_path / "other", tmp_path / "out")


def test_an_adapter_that_says_another_tokenizer_is_refused(adapter, tiny_base, tmp_path):
    resealed(adapter, tokenizer_digest="0" * 64)
    with pytest.raises(ArtifactError, match="learnt with the tokenizer '0000"):
        merge_adapter(adapter, tiny_base, tmp_path / "out")


def test_an_adapter_that_holds_another_tokenizer_is_refused(adapter, tiny_base, tmp_path):
    template = adapter / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
    resealed(adapter)
    with pytest.raises(ArtifactError, match="would be asked with tokens that it never learnt"):
        merge_adapter(adapter, tiny_base, tmp_path / "out")


def test_an_adapter_that_changes_nothing_is_refused(adapter, tiny_base, tmp_path):
    weights = load_file(adapter / "adapter_model.safetensors")
    still = {n: torch.zeros_like(w) if "lora_B" in n else w for n, w in weights.items()}
    save_file(still, adapter / "adapter_model.safetensors")
    resealed(adapter)
    with pytest.raises(ExportError, match="changes none of 6 layers"):
        merge_adapter(adapter, tiny_base, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_an_adapter_with_weights_for_other_layers_is_refused(adapter, tiny_base, tmp_path):
    # peft itself only warns, and merges a layer that was never learnt.
    weights = load_file(adapter / "adapter_model.safetensors")
    renamed = {n.replace("layers.1.", "layers.9."): w for n, w in weights.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    resealed(adapter)
    with (
        pytest.warns(UserWarning, match="missing adapter keys"),
        pytest.raises(ExportError, match="12 of 18 tensors stand on one side only"),
    ):
        merge_adapter(adapter, tiny_base, tmp_path / "out")


def test_an_altered_adapter_is_refused(adapter, tiny_base, tmp_path):
    with (adapter / "adapter_model.safetensors").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors.*altered"):
        merge_adapter(adapter, tiny_base, tmp_path / "out")


def test_a_base_of_mixed_types_is_refused(adapter, base, tmp_path):
    weights = load_file(base / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name].half()}, base / "model.safetensors", {"format": "pt"})
    resealed(adapter, base_digest=resealed(base).digest)
    with pytest.raises(ArtifactError, match=r"stores its tensors as \['F16', 'F32'\]"):
        merge_adapter(adapter, base, tmp_path / "out")


def test_the_kinds_are_not_mixed_up(tiny_base, tiny_adapter, tmp_path):
    with pytest.raises(ArtifactError, match=f"expected {LANGUAGE_MODEL_KIND!r}"):
        merge_adapter(tiny_adapter, tiny_adapter, tmp_path / "out")
    with pytest.raises(ArtifactError, match=f"expected {ADAPTER_KIND!r}"):
        merge_adapter(tiny_base, tiny_base, tmp_path / "out")
