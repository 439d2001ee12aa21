"""Aliases, resolved once, to the deployment that the gateway serves."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def deploy_challenger(
    registration: Input[Dataset],
    tracking_uri: str,
    model_name: str,
    challenger_share: float,
    models: str,
    inputs: str,
    deployment: Output[Dataset],
) -> str:
    """Fetch champion and challenger, check their hashes, write deployment.json; its digest.

    ``models`` is the folder that holds fetched models, by their digests.
    """
    from pathlib import Path

    from training.delivery import deploy_candidate

    manifest = deploy_candidate(
        tracking_uri,
        model_name,
        challenger_share=challenger_share,
        models=Path(models),
        out=Path(deployment.path),
    )
    deployment.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "registration": registration.uri}
    )
    return manifest.digest
