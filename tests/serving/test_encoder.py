import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ElectraConfig

from data.errors import ArtifactError
from serving.encoder import CONFIG_NAME, WEIGHTS_NAME, MultiTaskElectra, load_encoder, save_encoder


def tiny(seed: int = 0) -> MultiTaskElectra:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return MultiTaskElectra(
        ElectraConfig(
            vocab_size=40,
            embedding_size=16,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    ).eval()


def a_batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    return ids, (ids != 0).long()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_encoder(tiny(), tmp_path)
    return tmp_path


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_saved_encoder_answers_as_before(saved, attention):
    model = load_encoder(saved, attention=attention)
    assert not model.training
    assert model.config._attn_implementation == attention
    with torch.inference_mode():
        for before, after in zip(tiny()(*a_batch()), model(*a_batch()), strict=True):
            torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_only_safetensors_are_written(saved):
    assert {path.name for path in saved.iterdir()} == {CONFIG_NAME, WEIGHTS_NAME}
    assert load_file(saved / WEIGHTS_NAME)["sentiment_head.weight"].shape == (3, 16)


def test_the_heads_have_the_shapes_that_engines_promise():
    shapes = [tuple(values.shape) for values in tiny()(*a_batch())]
    assert shapes == [(2, 3), (2, 4), (2, 8), (2, 6, 3)]


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_refused(saved, name):
    (saved / name).unlink()
    with pytest.raises(ArtifactError, match="no loadable encoder"):
        load_encoder(saved)


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"\x80\x04\x95pickle"])
@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_garbled_file_is_refused(saved, name, content):
    (saved / name).write_bytes(content)
    with pytest.raises(ArtifactError, match="no loadable encoder"):
        load_encoder(saved)


def test_weights_cut_short_are_refused(saved):
    whole = (saved / WEIGHTS_NAME).read_bytes()
    (saved / WEIGHTS_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="no loadable encoder"):
        load_encoder(saved)


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_weights_of_another_architecture_are_refused(saved, change):
    weights = load_file(saved / WEIGHTS_NAME)
    if change == "missing":
        del weights["emotions_head.bias"]
    if change == "surplus":
        weights["stars_head.bias"] = torch.zeros(5)
    if change == "shape":
        weights["sentiment_head.weight"] = torch.zeros(5, 16)
    save_file(weights, saved / WEIGHTS_NAME)
    with pytest.raises(ArtifactError, match="train it again"):
        load_encoder(saved)


def test_a_config_of_other_sizes_is_refused(saved):
    config = json.loads((saved / CONFIG_NAME).read_text())
    (saved / CONFIG_NAME).write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(ArtifactError, match="train it again"):
        load_encoder(saved)


@pytest.mark.parametrize("seed", range(5))
def test_the_intensity_logits_never_rise_whatever_the_weights(seed):
    model = tiny(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=3.0)
    intensity = model.heads(torch.randn(50, 16) * 10)[1]
    assert (intensity[:, 1:] <= intensity[:, :-1]).all()


def test_padding_does_not_change_an_answer():
    model = tiny()
    ids, mask = a_batch()
    with torch.inference_mode():
        padded = model(ids, mask)
        alone = model(ids[1:, :3], mask[1:, :3])
    for one, other in zip(padded, alone, strict=True):
        torch.testing.assert_close(one[1], other[0], atol=1e-5, rtol=0)


def test_the_heads_of_a_mean_are_the_mean_of_the_heads():
    model = tiny()
    vectors, shares = torch.randn(4, 16), torch.tensor([0.1, 0.2, 0.3, 0.4])
    merged = model.heads((vectors * shares[:, None]).sum(0, keepdim=True))
    for one, each in zip(merged, model.heads(vectors), strict=True):
        mean = (each * shares.view(-1, *([1] * (each.ndim - 1)))).sum(0)
        torch.testing.assert_close(one[0], mean, atol=1e-5, rtol=0)
