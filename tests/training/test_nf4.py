"""NF4: its gradients are right after an evaluation, on every CPU."""

import json
import shutil

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, has_avx512bf16

from data.errors import ArtifactError
from training.nf4 import load_nf4

IDS = torch.arange(3, 67)[None]


def nf4_layers(model):
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def gradients(model):
    """Gradients of the norms, after a forward in eval mode as a trainer's evaluation makes."""
    norms = [weight for name, weight in model.named_parameters() if "norm" in name]
    for weight in norms:
        weight.requires_grad_(True)
    model.eval()
    with torch.no_grad():
        model(IDS)
    model.train()
    model(IDS, labels=IDS).loss.backward()
    return torch.cat(
        [torch.zeros_like(w) if w.grad is None else w.grad.flatten() for w in norms]
    ).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_after_an_evaluation_are_those_of_the_dequantised_copy(tiny_base, dtype):
    model = load_nf4(tiny_base, compute_dtype=dtype)
    copy = load_nf4(tiny_base, compute_dtype=dtype).dequantize()
    assert nf4_layers(copy) == []
    found, wanted = gradients(model), gradients(copy)
    assert float(wanted.norm()) > 0
    assert float(torch.cosine_similarity(found, wanted, dim=0)) > 0.99
    assert float(found.norm() / wanted.norm()) == pytest.approx(1, abs=0.05)


@pytest.mark.filterwarnings("ignore:bitsandbytes.*gemv_4bit")
def test_without_the_mend_they_are_wrong(tiny_base):
    if not has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16, so bitsandbytes repacks nothing")
    model = load_nf4(tiny_base, compute_dtype=torch.float32)
    for layer in nf4_layers(model):
        layer.support_avx512bf16_for_cpu = True
    copy = load_nf4(tiny_base, compute_dtype=torch.float32).dequantize()
    assert float(torch.cosine_similarity(gradients(model), gradients(copy), dim=0)) < 0.9


def test_every_linear_layer_but_the_head_is_nf4_with_double_quantisation(tiny_base):
    model = load_nf4(tiny_base, compute_dtype=torch.float32)
    layers = nf4_layers(model)
    assert len(layers) == 2 * 7
    for layer in layers:
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert layer.support_avx512bf16_for_cpu is False
    assert not isinstance(model.lm_head, Linear4bit)
    assert model.get_input_embeddings().weight.dtype == torch.float32


def test_a_quantised_base_is_refused(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "bitsandbytes"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"is quantised .*'bitsandbytes'"):
        load_nf4(folder, compute_dtype=torch.float32)


def test_a_folder_with_a_pickle_is_refused(tiny_base, tmp_path):
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ArtifactError, match="can run code"):
        load_nf4(folder, compute_dtype=torch.float32)


def test_no_config_is_said(tmp_path):
    with pytest.raises(ArtifactError, match=r"config\.json.*cannot be read"):
        load_nf4(tmp_path, compute_dtype=torch.float32)
