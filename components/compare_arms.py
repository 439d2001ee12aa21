"""What was served and fed back, to a verdict between champion and challenger."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def compare_arms(
    deployment: Input[Dataset],
    store_url: str,
    rule: str,
    traffic: str,
    watermark: str,
    comparison: Output[Dataset],
    report: Output[HTML],
) -> str:
    """Decide continue, promote, roll back or invalid; returns the comparison's digest.

    ``traffic`` says in words where the traffic came from; ``watermark`` changes with the store's
    contents, so that an unchanged store comes from the cache.
    """
    import shutil
    from pathlib import Path

    from training.comparison import compare_arms as compare

    manifest = compare(
        Path(deployment.path),
        store_url=store_url,
        rule=rule,
        traffic=traffic,
        out=Path(comparison.path),
    )
    shutil.copyfile(Path(comparison.path) / "report.html", report.path)
    comparison.metadata.update({"digest": manifest.digest, "watermark": watermark})
    return manifest.digest
