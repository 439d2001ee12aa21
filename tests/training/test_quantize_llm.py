"""Quantised language models: proved from their files, calibrated on the training part alone."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import ArtifactError, EngineError, ExportError, LeakageError, SettingsError
from data.examples import read_examples, write_examples
from data.manifest import MANIFEST_NAME, read_manifest, write_manifest
from serving.language_folder import read_language_model, tokenizer_digest
from training.answer_scores import answer_logits, load_scored_model, load_tokenizer, render_examples
from training.quantize_llm import (
    linear_layers,
    prove_format,
    prove_smoothed,
    quantize_language_model,
)
from training.stored_weights import stored_tensors, weight_bytes

LAYERS = 2 * 7


def leaking_targets(targets, folder):
    """Targets whose training part holds one prompt of the test part, under another name."""
    shutil.copytree(targets, folder)
    stolen = read_examples(targets / "test.jsonl")[0].model_copy(update={"about": "r-new"})
    write_examples(folder / "train.jsonl", [*read_examples(targets / "train.jsonl"), stolen])
    facts = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["facts"]
    write_manifest(folder, "targets", facts)
    return folder


def test_w8a8_is_really_int8_in_the_file(tiny_w8a8, tiny_merged):
    stored = stored_tensors(tiny_w8a8)
    int8 = {name for name, tensor in stored.items() if tensor.dtype == "I8"}
    wanted = {f"{name}.weight" for name in linear_layers(load_scored_model(tiny_merged))}
    assert len(wanted) == LAYERS
    assert int8 == wanted
    values = load_file(tiny_w8a8 / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert values.dtype == torch.int8
    assert len(values.unique()) > 100
    assert read_manifest(tiny_w8a8).facts["stored"] == {
        "quantized_layers": LAYERS,
        "weight_dtype": "I8",
        "tensors": {"I8": LAYERS, "F32": len(stored) - LAYERS},
        "head": "F32",
    }


def test_the_head_stays_in_float(tiny_w8a8):
    stored = stored_tensors(tiny_w8a8)
    config = json.loads((tiny_w8a8 / "config.json").read_text(encoding="utf-8"))
    assert "lm_head" in config["quantization_config"]["ignore"]
    assert "lm_head.weight" not in stored  # tied to the embeddings
    assert stored["model.embed_tokens.weight"].dtype == "F32"


def test_an_untied_head_stays_in_float_too(tiny_language, language_targets, tmp_path):
    untied = tmp_path / "untied"
    tiny_language.write_model(untied)
    config = json.loads((untied / "config.json").read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = False
    (untied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(untied / "model.safetensors")
    head = torch.randn_like(weights["model.embed_tokens.weight"])
    save_file(weights | {"lm_head.weight": head}, untied / "model.safetensors", {"format": "pt"})
    tiny_language.seal(untied)
    facts = quantize_language_model(
        untied, language_targets, None, tmp_path / "out", recipe="fp8"
    ).facts
    stored = stored_tensors(tmp_path / "out")
    assert stored["lm_head.weight"].dtype == "F32"
    assert facts["stored"]["head"] == "F32"
    assert facts["stored"]["tensors"]["F8_E4M3"] == LAYERS


def test_it_is_smaller_and_says_of_what_it_was_made(tiny_w8a8, tiny_merged, language_targets):
    facts, parent = read_language_model(tiny_w8a8).facts, read_manifest(tiny_merged)
    assert (facts["role"], facts["format"], facts["parent_format"]) == (
        "quantized",
        "w8a8",
        "float32",
    )
    assert facts["parent_digest"] == parent.digest
    assert facts["base_digest"] == parent.facts["base_digest"]
    assert facts["tokenizer_digest"] == tokenizer_digest(tiny_merged)
    assert facts["bytes"] == {
        "before": weight_bytes(tiny_merged),
        "after": weight_bytes(tiny_w8a8),
    }
    assert facts["bytes"]["after"] < 0.7 * facts["bytes"]["before"]
    assert facts["recipe"] == {"SmoothQuant": 0.8, "GPTQ": "W8A8", "ignore": ["lm_head"]}
    calibration = facts["calibration"]
    assert calibration["examples"] == 24
    assert calibration["targets_digest"] == read_manifest(language_targets).digest
    assert len(calibration["digest"]) == 64


def test_no_program_comes_with_it(tiny_w8a8):
    # llm-compressor's recipe.yaml carries Python tags.
    assert not (tiny_w8a8 / "recipe.yaml").exists()
    assert "!!python" not in "".join(
        path.read_text(encoding="utf-8") for path in tiny_w8a8.glob("*.json")
    )


def test_every_block_was_smoothed(tiny_w8a8, tiny_merged):
    assert read_manifest(tiny_w8a8).facts["smoothed"] == [
        f"model.layers.{number}.{norm}_layernorm.weight"
        for number in range(2)
        for norm in ("input", "post_attention")
    ]
    with pytest.raises(ExportError, match=r"SmoothQuant left out \['layers\.0\.', 'layers\.1\.'\]"):
        prove_smoothed(tiny_merged, tiny_merged)


def test_it_answers_nearly_as_its_parent(tiny_w8a8, tiny_merged, language_targets):
    rendered = render_examples(
        load_tokenizer(tiny_merged),
        read_examples(language_targets / "validation.jsonl"),
        count=4,
        max_tokens=1024,
    ).rendered
    one, other = load_scored_model(tiny_merged), load_scored_model(tiny_w8a8)
    for each in rendered:
        before, after = answer_logits(one, each), answer_logits(other, each)
        assert 0 < float((before - after).norm() / before.norm()) < 0.2


def test_the_same_calibration_has_the_same_digest(
    tiny_w8a8, tiny_merged, language_targets, tmp_path
):
    again = quantize_language_model(
        tiny_merged, language_targets, None, tmp_path / "out", samples=24
    )
    other = quantize_language_model(
        tiny_merged, language_targets, None, tmp_path / "other", samples=24, seed=1
    )
    assert again.digest == read_manifest(tiny_w8a8).digest
    assert other.facts["calibration"]["digest"] != again.facts["calibration"]["digest"]


@pytest.mark.parametrize(("recipe", "dtype"), [("fp8", "F8_E4M3"), ("w4a16", "I32")])
def test_other_recipes_are_what_they_say(tiny_merged, language_targets, tmp_path, recipe, dtype):
    facts = quantize_language_model(
        tiny_merged, language_targets, None, tmp_path / "out", recipe=recipe, samples=16
    ).facts
    assert facts["format"] == recipe
    assert facts["stored"]["weight_dtype"] == dtype
    assert facts["stored"]["quantized_layers"] == LAYERS
    assert facts["stored"]["head"] == "F32"
    assert (facts["calibration"] is None) == (recipe == "fp8")
    assert facts["smoothed"] == []
    ids = torch.arange(3, 67)[None]
    with torch.inference_mode():
        before, after = (load_scored_model(f)(ids).logits for f in (tiny_merged, tmp_path / "out"))
    assert 0 < float((before - after).norm() / before.norm()) < 0.6


def test_w4a16_takes_the_largest_group_that_fits(tiny_merged, language_targets, tmp_path):
    # 64 wide: the usual group of 128 would be cut without an error until the first product.
    facts = quantize_language_model(
        tiny_merged, language_targets, None, tmp_path / "out", recipe="w4a16", samples=16
    ).facts
    assert facts["recipe"]["group_size"] == 64


def test_a_file_of_another_format_is_not_called_w8a8(tiny_w8a8, tiny_merged):
    layers = linear_layers(load_scored_model(tiny_merged))
    assert prove_format(tiny_w8a8, "w8a8", layers)["quantized_layers"] == LAYERS
    with pytest.raises(ExportError, match="14 of 14 layers are not stored as F8_E4M3"):
        prove_format(tiny_w8a8, "fp8", layers)
    with pytest.raises(ExportError, match="14 of 14 layers are not stored as I8"):
        prove_format(tiny_merged, "w8a8", layers)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.layers.1.mlp.up_proj.weight", "1 of 14 layers are not stored as I8"),
        ("model.embed_tokens.weight", "1 others are"),
    ],
)
def test_a_layer_that_was_skipped_or_should_have_been_is_named(
    tiny_w8a8, tiny_merged, tmp_path, name, message
):
    folder = Path(shutil.copytree(tiny_w8a8, tmp_path / "w8a8"))
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights[name].to(torch.int8 if "embed" in name else torch.float32)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=message) as refused:
        prove_format(folder, "w8a8", linear_layers(load_scored_model(tiny_merged)))
    assert name in str(refused.value)


def test_a_layer_without_its_scale_is_named(tiny_w8a8, tiny_merged, tmp_path):
    folder = Path(shutil.copytree(tiny_w8a8, tmp_path / "w8a8"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight_scale"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match="1 have no scale"):
        prove_format(folder, "w8a8", linear_layers(load_scored_model(tiny_merged)))


def test_a_layer_that_gptq_cannot_solve_is_an_error(
    tiny_merged, language_targets, tmp_path, monkeypatch
):
    def unsolvable(hessian, *, check_errors, out):
        out[1].fill_(1)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", unsolvable)
    with pytest.raises(ExportError, match="Hessian inversion failed"):
        quantize_language_model(tiny_merged, language_targets, None, tmp_path / "out", samples=8)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_calibration_on_a_test_prompt_is_refused(tiny_merged, language_targets, tmp_path):
    targets = leaking_targets(language_targets, tmp_path / "targets")
    with pytest.raises(LeakageError, match=r"'r-new' \(labels\) stands in the test part"):
        quantize_language_model(tiny_merged, targets, None, tmp_path / "out", samples=1000)
    assert not (tmp_path / "out").exists()


def test_a_quantised_model_is_not_quantised_again(tiny_w8a8, language_targets, tmp_path):
    with pytest.raises(ArtifactError, match=r"is quantised .*'compressed-tensors'"):
        quantize_language_model(tiny_w8a8, language_targets, None, tmp_path / "out")


def test_a_gpu_that_lacks_the_format_is_refused_before_anything_is_read(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(EngineError, match=r"'w8a8' does not run on compute capability 10"):
        quantize_language_model(missing, missing, None, tmp_path / "out", capability=(10, 0))
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        quantize_language_model(missing, missing, None, tmp_path / "out", capability=(8, 0))


def test_an_unknown_recipe_is_refused(tiny_merged, language_targets, tmp_path):
    with pytest.raises(SettingsError, match="recipe is 'int3', expected one of"):
        quantize_language_model(
            tiny_merged, language_targets, None, tmp_path / "out", recipe="int3"
        )


def test_an_altered_parent_is_refused(tiny_merged, language_targets, tmp_path):
    folder = Path(shutil.copytree(tiny_merged, tmp_path / "merged"))
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*altered"):
        quantize_language_model(folder, language_targets, None, tmp_path / "out")
