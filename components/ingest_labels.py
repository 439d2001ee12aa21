"""Labels, wherever they are, to a frozen snapshot."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def ingest_labels(
    source: str,
    kind: str,
    mapping: str,
    guideline_version: str,
    source_digest: str,
    snapshot: Output[Dataset],
) -> str:
    """Freeze labels into a snapshot; returns its digest.

    ``source`` is a file, or a Label Studio project's address; ``kind`` says which; ``mapping`` is
    a table's column mapping as YAML text. ``source_digest`` changes with the labels, so that
    unchanged labels come from the cache.
    """
    from pathlib import Path

    from data.snapshot import ingest_labels as ingest

    manifest = ingest(
        source,
        kind,  # type: ignore[arg-type]  # checked there; KFP knows no Literal
        mapping=mapping or None,
        guideline_version=guideline_version,
        out=Path(snapshot.path),
    )
    snapshot.metadata.update({"digest": manifest.digest, "source_digest": source_digest})
    return manifest.digest
