"""A base under NF4 for QLoRA, mended so that its gradients are right on every CPU.

Weights of the linear layers are stored as 4-bit NormalFloat with doubly quantised scales; what is
left out (embeddings, norms, the head) keeps the checkpoint's own type. NF4 is a function of the
checkpoint alone, so training and a later merge see the same weights (training/merge_llm.py).

bitsandbytes 0.50.2 repacks a weight for AVX512-BF16 at the first forward in eval mode, and never
packs it back: from then on nothing flows backwards through the layer, and no error says so. So
after an evaluation in the middle of training, adapters learn from wrong gradients. Repacking is
switched off right after loading; tests/training/test_nf4.py keeps it so.

Source: QLoRA (arXiv 2305.14314).
"""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from data.errors import ArtifactError
from serving.language_folder import refuse_code
from training.stored_weights import refuse_quantised


def load_nf4(folder: Path, *, compute_dtype: torch.dtype) -> PreTrainedModel:
    """Load a checkpoint under NF4, on the GPU where there is one.

    Args:
        folder: a float checkpoint.
        compute_dtype: what a weight is dequantised to for its product; ``torch.bfloat16`` on a
            GPU, ``torch.float32`` where a CPU is to be compared with float training.

    Raises:
        ArtifactError: the checkpoint is quantised already, could run code, or has no linear layer.
    """
    from bitsandbytes.nn.modules import Linear4bit  # its import looks for CUDA

    refuse_code(folder)
    refuse_quantised(folder)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        local_files_only=True,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype,
        ),
    )
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if not layers:
        raise ArtifactError(
            f"{str(folder)!r} has no linear layer that NF4 could hold; train it unquantised"
        )
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return model
