"""A recipe to an embedding model: a published one brought in, or one made on the spot."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def train_embedding(
    split: Input[Dataset],
    recipe: str,
    files_digest: str,
    checkpoints: str,
    inputs: str,
    model: Output[Model],
) -> str:
    """Adopt or train; only texts of the training part are read. Returns the model's digest.

    ``files_digest`` changes with the files that the recipe names, so that unchanged ones come from
    the cache.
    """
    from pathlib import Path

    from training.embedding import train_embedding as train
    from training.embedding_recipe import parse_embedding_recipe

    manifest = train(
        parse_embedding_recipe(recipe),
        Path(split.path),
        Path(model.path),
        checkpoints=Path(checkpoints),
    )
    model.metadata.update(
        {
            "digest": manifest.digest,
            "inputs": inputs,
            "format": "torch-fp32",
            "files_digest": files_digest,
        }
    )
    return manifest.digest
