"""Whoever shares the batch changes no answer, for each engine there is that says so."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import quantize_dynamic

from data.manifest import write_manifest
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import ENGINES, make_engine, unfit_reason
from serving.windows import pad
from training.qdq import quantize_qdq

LONGEST = 40
# Of unit vectors of 128 numbers; a graph that scales by the batch moves them by 3e-3.
LAST_BITS = {"fp32": 1e-6, "less": 1e-3}


def windows(lengths: list[int], seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 500, length).tolist() for length in lengths]


@pytest.fixture(scope="module")
def whole_folder(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a file for every engine that runs on a processor."""
    folder = Path(shutil.copytree(small_model, tmp_path_factory.mktemp("mates") / "model"))
    graph = folder / "graph.onnx"
    shutil.copy2(graph, folder / "model.onnx")
    quantize_dynamic(graph, folder / "int8.onnx")
    batches = [pad(windows([LONGEST] * 8, seed), 0) for seed in range(4)]
    quantize_qdq(graph, folder / "qdq.onnx", batches, scheme="smoothquant, ffn-down in float")
    write_manifest(folder, EMBEDDING_KIND, {})
    return folder


@pytest.mark.parametrize("name", ENGINES)
def test_batch_mates_change_nothing_where_that_is_claimed(
    whole_folder: Path, encoders, name: str
) -> None:
    reason = unfit_reason(name, whole_folder)
    if reason is not None:
        pytest.skip(reason)
    engine = make_engine(name, whole_folder)
    farthest = encoders.moved_by_mates(engine)
    last_bits = LAST_BITS["fp32" if "fp32" in name else "less"]
    if engine.batch_invariant:
        assert farthest <= last_bits
    else:  # nor is it a name for what does not happen: so small a difference can be seen
        assert farthest > last_bits
