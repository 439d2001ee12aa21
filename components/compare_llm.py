"""Does each model on the way to serving answer like the one it was made from?"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def compare_llm(
    targets: Input[Dataset],
    base: Input[Model],
    adapter: Input[Model],
    merged: Input[Model],
    quantized: Input[Model],
    settings: str,
    served_url: str,
    inputs: str,
    parity: Output[Dataset],
) -> str:
    """Compare adapter, merged, quantised and served; returns the digest. A broken link fails.

    ``settings`` is YAML text (training/language_delivery.py); empty, the defaults. ``served_url``
    is the root of a vLLM that serves the quantised model; empty leaves that link out. A server that
    wants a key is given ``MATJIP_UPSTREAM_API_KEY`` of the environment, as the gateway gives it.
    """
    import os
    from pathlib import Path

    from data.settings import parse_settings
    from training.language_delivery import LanguageParitySettings, compare_language_chain

    manifest = compare_language_chain(
        Path(targets.path),
        base=Path(base.path),
        adapter=Path(adapter.path),
        merged=Path(merged.path),
        quantized=Path(quantized.path),
        settings=parse_settings(LanguageParitySettings, settings, where="parity settings"),
        out=Path(parity.path),
        served_url=served_url,
        api_key=os.environ.get("MATJIP_UPSTREAM_API_KEY"),
    )
    parity.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
