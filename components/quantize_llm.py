"""A merged language model to INT8, FP8 or INT4, proved from its files."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def quantize_llm(
    merged: Input[Model],
    targets: Input[Dataset],
    split: Input[Dataset],
    recipe: str,
    inputs: str,
    quantized: Output[Model],
) -> str:
    """Calibrate on the training part alone, quantise; returns the quantised model's digest."""
    from pathlib import Path

    from training.language_recipe import parse_language_recipe
    from training.quantize_llm import quantize_language_model

    settings = parse_language_recipe(recipe)
    manifest = quantize_language_model(
        Path(merged.path),
        Path(targets.path),
        Path(split.path),
        Path(quantized.path),
        recipe=settings.quantization.scheme,
        samples=settings.quantization.samples,
        smoothing=settings.quantization.smoothing,
        seed=settings.seed,
        capability=settings.quantization.capability,
    )
    quantized.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "format": manifest.facts["format"]}
    )
    return manifest.digest
