"""An adapter and its base to one float model."""

from kfp import dsl
from kfp.dsl import Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def merge_llm(
    adapter: Input[Model],
    base: Input[Model],
    inputs: str,
    merged: Output[Model],
) -> str:
    """Merge, never into a quantised base; returns the merged model's digest."""
    from pathlib import Path

    from training.merge_llm import merge_adapter

    manifest = merge_adapter(Path(adapter.path), Path(base.path), Path(merged.path))
    merged.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "format": manifest.facts["format"]}
    )
    return manifest.digest
