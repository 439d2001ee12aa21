"""A registered embedding model to the deployment that the gateway serves."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def deploy_embedding(
    registration: Input[Dataset],
    tracking_uri: str,
    version: str,
    models: str,
    inputs: str,
    deployment: Output[Dataset],
) -> str:
    """Fetch a version that passed, hashes checked, and write the deployment; its digest.

    ``version`` brings back another version of the same model; empty, the one just registered.
    """
    from pathlib import Path

    from training.embedding_delivery import deploy_embedding as deploy

    manifest = deploy(
        tracking_uri,
        registration=Path(registration.path),
        version=version,
        models=Path(models),
        out=Path(deployment.path),
    )
    deployment.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
