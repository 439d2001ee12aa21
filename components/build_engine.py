"""A model's graphs to a TensorRT engine for the GPU of the node that the step runs on."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def build_engine(
    exported: Input[Model],
    quantized: Input[Model],
    split: Input[Dataset],
    token_budget: int,
    timing_cache: str,
    inputs: str,
    engine: Output[Model],
) -> str:
    """Build FP16 and INT8, keep the faster; fails without a GPU; returns the engine's key."""
    from pathlib import Path

    from training.build_engine import build_classifier_engine

    plan = build_classifier_engine(
        Path(exported.path),
        Path(quantized.path),
        Path(split.path),
        Path(engine.path),
        token_budget=token_budget,
        timing_cache=Path(timing_cache) if timing_cache else None,
    )
    engine.metadata.update({"key": plan.key, "inputs": inputs, "precision": plan.precision})
    return plan.key
