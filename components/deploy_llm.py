"""A language model's aliases, resolved once, to the deployment that the gateway serves."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def deploy_llm(
    registration: Input[Dataset],
    tracking_uri: str,
    model_name: str,
    challenger_share: float,
    models: str,
    base_url: str,
    inputs: str,
    deployment: Output[Dataset],
) -> str:
    """Fetch champion and challenger, check their hashes, write the deployment; its digest.

    ``base_url`` is vLLM's, or ``champion=URL challenger=URL`` of two; empty, the gateway loads the
    models itself. A server that wants a key is given ``MATJIP_UPSTREAM_API_KEY``.
    """
    import os
    from pathlib import Path

    from training.language_delivery import deploy_language_candidate

    manifest = deploy_language_candidate(
        tracking_uri,
        model_name,
        challenger_share=challenger_share,
        models=Path(models),
        base_url=base_url,
        out=Path(deployment.path),
        api_key=os.environ.get("MATJIP_UPSTREAM_API_KEY"),
    )
    deployment.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "registration": registration.uri}
    )
    return manifest.digest
