"""An embedding model to ONNX in fp32 and fp16, checked against it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def export_embedding(
    model: Input[Model], split: Input[Dataset], threads: int, inputs: str, exported: Output[Model]
) -> str:
    """Export by both exporters, refuse what answers differently; returns the export's digest."""
    from pathlib import Path

    from training.export_embedding import export_embedding as export

    manifest = export(Path(model.path), Path(split.path), Path(exported.path), threads=threads)
    exported.metadata.update({"digest": manifest.digest, "inputs": inputs, "format": "onnx-fp32"})
    return manifest.digest
