"""A random Qwen2 with an adapter, made where it runs: the shape of a 7B, or of a toy.

Made from sizes alone, so that nothing is fetched: what weights say changes nothing about the time.
"""

from typing import Any, Final, Literal

import torch

Base = Literal["bf16", "nf4"]
QWEN_7B: Final[dict[str, Any]] = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
"""Of Qwen2.5-7B: 7.6 thousand million weights."""
TOY: Final[dict[str, Any]] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def build(
    base: Base,
    sizes: dict[str, Any],
    device: torch.device,
    *,
    rank: int,
    attention: str,
    checkpointing: bool,
    seed: int,
) -> Any:
    """A model ready to be trained, an adapter on all its linear layers but the head.

    Args:
        base: its frozen weights in bfloat16, or under NF4.
        sizes: of the model.
        device: where it is made, and stays.
        rank: of the adapter.
        attention: as transformers names it.
        checkpointing: activations are computed again in the backward pass.
        seed: of the weights.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        **sizes,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        use_cache=False,
    )
    torch.manual_seed(seed)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )
    if base == "nf4":
        quantize(model)
    adapter = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, adapter)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def quantize(model: Any) -> None:
    """Put NF4 with double quantisation in the place of every linear layer but the head."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or name == "lm_head":
            continue
        with torch.device("meta"):  # its own weight is thrown away at once
            small = Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=torch.bfloat16,
            )
        small.weight = Params4bit(
            layer.weight.data,
            requires_grad=False,
            compress_statistics=True,
            quant_type="nf4",
            module=small,
        ).to(layer.weight.device)  # moving is what quantises
        small.bias = layer.bias
        # bitsandbytes 0.50 repacks for AVX512-BF16 and then loses gradients; see training/nf4.py.
        small.support_avx512bf16_for_cpu = False
        model.set_submodule(name, small)
    model.is_loaded_in_4bit = True  # peft asks


def matrix_weights(model: Any) -> int:
    """Weights in matrices that every token goes through, the adapter left out."""
    return sum(
        layer.in_features * layer.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lora_" not in name
    )
