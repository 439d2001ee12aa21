"""An exported embedding model to INT8, for ONNX Runtime and as Q/DQ, checked against it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def quantize_embedding(
    exported: Input[Model],
    split: Input[Dataset],
    recipe: str,
    threads: int,
    inputs: str,
    quantized: Output[Model],
) -> str:
    """Quantise, leave out what moves the vectors too far; returns the digest.

    It fails only where the recipe demands a format that no scheme holds.
    """
    from pathlib import Path

    from training.embedding_recipe import parse_embedding_recipe
    from training.quantize_embedding import quantize_embedding as quantize

    manifest = quantize(
        Path(exported.path),
        Path(split.path),
        Path(quantized.path),
        demanded=parse_embedding_recipe(recipe).demanded,
        threads=threads,
    )
    quantized.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "format": manifest.facts["format"]}
    )
    return manifest.digest
