"""A recipe, and unlabelled text if there is any, to the encoder that fine-tuning starts from."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def pretrain_encoder(
    recipe: str,
    checkpoints: str,
    inputs: str,
    encoder: Output[Model],
    reviews: Input[Dataset] = None,
) -> str:
    """Make an encoder on the spot, or bring in a pretrained one; returns its digest.

    ``recipe`` is YAML text (training/recipe.py). ``reviews`` is a split whose training texts,
    never their labels, join the corpus.
    """
    from pathlib import Path

    from training.pretraining import pretrain_encoder as pretrain
    from training.recipe import parse_recipe

    manifest = pretrain(
        parse_recipe(recipe),
        Path(encoder.path),
        reviews=None if reviews is None else Path(reviews.path),
        checkpoints=Path(checkpoints),
    )
    encoder.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
