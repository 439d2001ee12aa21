"""A split and written summaries to what a language model is taught and tested on."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def build_targets(
    split: Input[Dataset],
    summaries: str,
    summaries_digest: str,
    inputs: str,
    targets: Output[Dataset],
) -> str:
    """Build the examples of every part; returns the targets' digest.

    ``summaries`` is a path; empty, the model is taught labels alone. ``summaries_digest`` is there
    for the cache, which compares parameters, never a file's contents.
    """
    from pathlib import Path

    from data.targets import build_targets as build

    manifest = build(Path(split.path), Path(summaries) if summaries else None, Path(targets.path))
    targets.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "summaries_digest": summaries_digest}
        | {f"quarantined_{name}": count for name, count in manifest.facts["reasons"].items()}
    )
    return manifest.digest
