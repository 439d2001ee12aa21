"""A language model's folder is loaded as it was saved, its adapter laid on it, or it is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data.errors import ArtifactError
from data.manifest import read_manifest, write_manifest
from serving.adapter_folder import read_adapter
from serving.language_folder import ADAPTER_KIND
from serving.language_model import load_language_model

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def int8(tiny: Any, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language") / "int8"
    tiny.write_quantized(folder, tiny_base)
    return folder


@pytest.fixture
def adapter(tiny: Any, tiny_base: Path, tmp_path: Path) -> Path:
    tiny.write_adapter(tmp_path / "adapter", tiny_base)
    return tmp_path / "adapter"


@pytest.fixture
def copy(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "copy"))


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_model_is_loaded_as_it_was_saved(tiny_base: Path) -> None:
    loaded = load_language_model(tiny_base)
    stored = load_file(tiny_base / "model.safetensors")
    assert set(stored) <= set(loaded.model.state_dict())
    for name, weight in stored.items():
        assert torch.equal(loaded.model.state_dict()[name], weight)
    assert loaded.context == 1024
    assert loaded.vocabulary == len(loaded.tokenizer)
    assert {loaded.tokenizer.decode([end]) for end in loaded.ends} == {"<|im_end|>"}
    assert not loaded.model.training


def rename(weights: dict[str, torch.Tensor]) -> None:
    weights["model.layers.9.mlp.up_proj.weight"] = weights.pop("model.layers.1.mlp.up_proj.weight")


def reshape(weights: dict[str, torch.Tensor]) -> None:
    weights["model.norm.weight"] = torch.ones(32)


@pytest.mark.parametrize(
    ("change", "facts", "reason"),
    [
        (lambda f: (f / "pytorch_model.bin").write_bytes(b"x"), {}, "can run code"),
        (lambda f: (f / "modeling_x.py").write_text("x = 1"), {}, "can run code"),
        (lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "x.Y"}), {}, "auto_map"),
        (lambda f: edit_json(f / "config.json", model_type="no-such"), {}, "cannot be loaded"),
        (lambda f: edit_weights(f / "model.safetensors", rename), {}, "missing_keys"),
        (lambda f: edit_weights(f / "model.safetensors", reshape), {}, "cannot be loaded|mismatch"),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut"), {}, "cannot be loaded"),
        (lambda f: (f / "model.safetensors").unlink(), {}, "cannot be loaded"),
        (lambda f: None, {"format": "w8a8"}, "stored as None"),
        (lambda f: None, {"tokenizer_digest": "0" * 64}, "its manifest says '0000"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), {}, "no tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), {"tokenizer_digest": "x"}, "lacks"),
        (
            lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "gptq"}),
            {"format": "w4a16"},
            "stored as 'gptq'",
        ),
    ],
)
def test_a_folder_that_is_not_right_is_refused(
    tiny: Any, copy: Path, change: Change, facts: dict[str, Any], reason: str
) -> None:
    change(copy)
    digest = {} if (copy / "tokenizer.json").is_file() else {"tokenizer_digest": "x"}
    write_manifest(
        copy,
        "language_model",
        {"role": "base", "format": "float32", "tokenizer_digest": digest_of(copy)} | digest | facts,
    )
    with pytest.raises(ArtifactError, match=reason):
        load_language_model(copy)


def digest_of(folder: Path) -> str | None:
    from serving.language_folder import tokenizer_digest

    try:
        return tokenizer_digest(folder)
    except ArtifactError:
        return None


def test_a_folder_that_was_altered_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", hidden_size=32)
    with pytest.raises(ArtifactError, match="altered or cut short"):
        load_language_model(copy)


def test_a_tokenizer_that_the_model_has_no_rows_for_is_refused(tiny: Any, copy: Path) -> None:
    tiny.write_tokenizer(copy, [*tiny.TEXTS, "맛집 주차 예약 포장 배달 " * 3], vocabulary=700)
    tiny.seal(copy)
    with pytest.raises(ArtifactError, match="put the model's own tokenizer"):
        load_language_model(copy)


def test_int8_is_computed_as_stored(tiny_base: Path, int8: Path) -> None:
    model = load_language_model(int8).model
    stored = load_file(int8 / "model.safetensors")
    layer = model.model.layers[1].mlp.down_proj
    weight = stored["model.layers.1.mlp.down_proj.weight"]
    assert weight.dtype == torch.int8
    scale = stored["model.layers.1.mlp.down_proj.weight_scale"]
    torch.testing.assert_close(layer.weight, weight.float() * scale)
    # Activations too: each token's largest value takes the largest of 255 steps.
    torch.manual_seed(0)
    given = torch.randn(2, 3, 128)
    step = given.abs().amax(dim=-1, keepdim=True) / 127.5
    rounded = (given / step).round().clamp(-128, 127) * step
    expected = rounded @ (weight.float() * scale).T
    with torch.inference_mode():
        torch.testing.assert_close(layer(given), expected)
    assert not torch.allclose(given @ (weight.float() * scale).T, expected, rtol=0, atol=1e-4)


def test_int8_without_its_scales_is_refused(tiny: Any, int8: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(int8, tmp_path / "scaleless"))
    edit_weights(
        folder / "model.safetensors",
        lambda w: w.pop("model.layers.1.mlp.down_proj.weight_scale"),
    )
    tiny.seal(folder, role="quantized", format="w8a8")
    with pytest.raises(ArtifactError, match="weight_scale"):
        load_language_model(folder)


def test_int8_that_lost_its_config_is_refused(tiny: Any, int8: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(int8, tmp_path / "bare"))
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    tiny.seal(folder, role="quantized", format="bfloat16")
    # transformers would take the INT8 values for the weights themselves, with a line in its log.
    with pytest.raises(ArtifactError, match="weight_scale"):
        load_language_model(folder)


def last_logits(folder: Path, adapter: Path | None = None) -> torch.Tensor:
    model = load_language_model(folder, adapter=adapter).model
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([[1, 40, 41, 42]])).logits[0, -1]
    return logits


def test_an_adapter_is_what_its_matrices_say(tiny_base: Path, adapter: Path) -> None:
    plain = load_language_model(tiny_base).model
    lora = load_file(adapter / "adapter_model.safetensors")
    for name, down in lora.items():
        if "lora_A" in name:
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            up = lora[name.replace("lora_A", "lora_B")]
            plain.get_submodule(path).weight.data += (16 / 8) * up @ down
    with torch.inference_mode():
        expected = plain(torch.tensor([[1, 40, 41, 42]])).logits[0, -1]
    torch.testing.assert_close(last_logits(tiny_base, adapter), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(last_logits(tiny_base), expected, atol=1e-2)


def test_an_adapter_may_lie_on_its_bases_int8(int8: Path, adapter: Path) -> None:
    assert not torch.allclose(last_logits(int8), last_logits(int8, adapter), atol=1e-2)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"base_digest": "f" * 64}, "for the base 'ffffffffffff', not for"),
        ({"base_digest": None}, "for the base None"),
        ({"tokenizer_digest": "f" * 64}, "learnt with the tokenizer 'ffffffffffff'"),
        ({"tokenizer_digest": None}, "learnt with the tokenizer None"),
    ],
)
def test_an_adapter_of_another_base_or_tokenizer_is_refused(
    tiny_base: Path, adapter: Path, facts: dict[str, Any], reason: str
) -> None:
    write_manifest(adapter, ADAPTER_KIND, read_manifest(adapter).facts | facts)
    with pytest.raises(ArtifactError, match=reason):
        load_language_model(tiny_base, adapter=adapter)


def test_an_adapter_of_another_models_int8_is_refused(
    tiny: Any, int8: Path, tmp_path: Path
) -> None:
    tiny.write_model(tmp_path / "other", seed=5)
    tiny.write_adapter(tmp_path / "adapter", tmp_path / "other")
    with pytest.raises(ArtifactError, match="pass that base"):
        read_adapter(tmp_path / "adapter", read_manifest(int8))


def double(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if "layers.0" in name)
    weights[name.replace("layers.0", "layers.7")] = weights[name].clone()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "adapter_model.bin").write_bytes(b"x"), "can run code"),
        (lambda f: (f / "adapter_config.json").unlink(), "lacks"),
        (lambda f: edit_weights(f / "adapter_model.safetensors", double), "layers.7"),
        (lambda f: edit_weights(f / "adapter_model.safetensors", dict.popitem), "do not fit"),
        (lambda f: edit_json(f / "adapter_config.json", r=4), "do not fit|size mismatch"),
        (lambda f: edit_json(f / "adapter_config.json", target_modules=["w"]), "not fit|not found"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"cut"), "cannot be laid"),
    ],
)
def test_an_adapter_that_is_not_right_is_refused(
    tiny_base: Path, adapter: Path, change: Change, reason: str
) -> None:
    facts = read_manifest(adapter).facts
    change(adapter)
    write_manifest(adapter, ADAPTER_KIND, facts)
    with pytest.raises(ArtifactError, match=reason):
        load_language_model(tiny_base, adapter=adapter)


def test_a_model_is_no_adapter_and_an_adapter_no_model(tiny_base: Path, adapter: Path) -> None:
    with pytest.raises(ArtifactError, match="expected 'language_adapter'"):
        load_language_model(tiny_base, adapter=tiny_base)
    with pytest.raises(ArtifactError, match="expected 'language_model'"):
        load_language_model(adapter)
