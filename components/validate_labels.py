"""A snapshot to the part of it that is fit to train on, and the part that is not."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def validate_labels(
    snapshot: Input[Dataset],
    policy: str,
    inputs: str,
    validated: Output[Dataset],
    report: Output[HTML],
) -> str:
    """Accept or quarantine every row; returns the digest of what was accepted.

    ``policy`` is YAML text (data/validation.py); ``inputs`` are the digests of the artifacts that
    go in, which the cache compares.
    """
    import shutil
    from pathlib import Path

    from data.settings import parse_settings
    from data.validation import ValidationPolicy
    from data.validation import validate_labels as validate

    manifest = validate(
        Path(snapshot.path),
        Path(validated.path),
        parse_settings(ValidationPolicy, policy, where="validation policy"),
    )
    shutil.copyfile(Path(validated.path) / "report.html", report.path)
    validated.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
