"""A recipe and targets to the language model that fine-tuning starts from."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def pretrain_llm(
    targets: Input[Dataset],
    recipe: str,
    checkpoints: str,
    inputs: str,
    base: Output[Model],
) -> str:
    """Bring in a pretrained checkpoint, or make a small one on the spot; returns its digest.

    ``recipe`` is YAML text (training/language_recipe.py). Of the targets only the training part's
    texts are read, never their answers.
    """
    from pathlib import Path

    from training.language_base import make_language_base
    from training.language_recipe import parse_language_recipe

    manifest = make_language_base(
        Path(targets.path),
        parse_language_recipe(recipe),
        Path(base.path),
        checkpoints=Path(checkpoints),
    )
    base.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
