"""Accepted reviews to training, validation and test parts that share nothing."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def split_dataset(
    validated: Input[Dataset],
    group_by: str,
    validation_share: float,
    test_share: float,
    seed: int,
    inputs: str,
    split: Output[Dataset],
) -> str:
    """Split by restaurant, stratified and seeded; returns the split's digest."""
    from pathlib import Path

    from data.splits import split_dataset as run

    manifest = run(
        Path(validated.path),
        Path(split.path),
        fractions={
            "train": 1.0 - validation_share - test_share,
            "validation": validation_share,
            "test": test_share,
        },
        seed=seed,
        group_by=group_by,  # type: ignore[arg-type]  # checked there; KFP knows no Literal
    )
    split.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
