"""Whether an embedding model's graphs are shaped as TensorRT takes them; asked without a GPU."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def check_tensorrt(
    model: Input[Model], recipe: str, max_batch: int, inputs: str, check: Output[Dataset]
) -> str:
    """Ask TensorRT-RTX's builder, which runs nothing; returns the digest.

    A refusal is recorded; it fails only where the recipe demands the format.
    """
    from pathlib import Path

    from training.embedding_recipe import parse_embedding_recipe
    from training.tensorrt_check import check_tensorrt as ask

    manifest = ask(
        Path(model.path),
        Path(check.path),
        max_batch=max_batch,
        demanded=parse_embedding_recipe(recipe).demanded,
    )
    check.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
