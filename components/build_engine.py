"""An exported model to TensorRT engines for the GPU of the node that it runs on."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def build_engine(
    model: Input[Model],
    quantized: Input[Model],
    split: Input[Dataset],
    timings: str,
    batch_tokens: int,
    inputs: str,
    engine: Output[Model],
) -> str:
    """Build, inspect, compare and measure; fails without a GPU or TensorRT. Returns the digest."""
    from pathlib import Path

    from training.engine_delivery import deliver_engines

    manifest = deliver_engines(
        Path(model.path),
        Path(quantized.path),
        Path(split.path),
        Path(engine.path),
        timings=Path(timings),
        batch_tokens=batch_tokens,
    )
    engine.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest
