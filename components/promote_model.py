"""A verdict to the traffic and the alias that turn, or stay, because of it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def promote_model(
    comparison: Input[Dataset],
    deployment: Input[Dataset],
    tracking_uri: str,
    store_url: str,
    inputs: str,
    promotion: Output[Dataset],
) -> str:
    """Carry the verdict out, with its evidence; returns the promotion's digest."""
    from pathlib import Path

    from training.delivery import promote_candidate

    manifest = promote_candidate(
        tracking_uri,
        comparison=Path(comparison.path),
        deployment=Path(deployment.path),
        out=Path(promotion.path),
        store_url=store_url,
    )
    promotion.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
