"""ONNX fp32 to INT8, checked against it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def quantize_encoder(
    exported: Input[Model],
    split: Input[Dataset],
    threads: int,
    inputs: str,
    quantized: Output[Model],
) -> str:
    """Quantise, refuse what answers differently; returns the INT8 model's digest."""
    from pathlib import Path

    from training.quantize_encoder import quantize_encoder as quantize

    manifest = quantize(
        Path(exported.path), Path(split.path), Path(quantized.path), threads=threads
    )
    quantized.metadata.update({"digest": manifest.digest, "inputs": inputs, "format": "onnx-int8"})
    return manifest.digest
