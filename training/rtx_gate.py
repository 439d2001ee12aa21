"""Does TensorRT-RTX's builder take a graph? It runs on the CPU and needs no GPU.

What it takes is TensorRT-shaped: its operators, types and dynamic shapes are those that TensorRT
builds from. It says nothing of speed, and no GPU has run it.
"""

import importlib
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from data.errors import EngineError, ExportError


class RtxReport(BaseModel):
    """What the builder made of a graph.

    Attributes:
        version: of TensorRT-RTX.
        engine_bytes: of what it built, which is thrown away.
        seconds: that it took.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    engine_bytes: int
    seconds: float


def check_tensorrt_shape(graph: Path, *, max_batch: int, max_tokens: int) -> RtxReport:
    """Parse and build a graph with TensorRT-RTX.

    Args:
        graph: with inputs of shape (batch, tokens), both dynamic.
        max_batch: windows of the largest batch.
        max_tokens: of the longest window.

    Raises:
        ExportError: the parser or the builder refuses it; says what they said.
        EngineError: TensorRT-RTX is not installed.
    """
    try:
        library: Any = importlib.import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        raise EngineError(
            f"TensorRT-RTX cannot be imported: {error}; pip install tensorrt-rtx-cu13-bindings "
            "tensorrt-rtx-cu13-libs"
        ) from error
    start = time.monotonic()
    logger = library.Logger(library.Logger.ERROR)
    builder = library.Builder(logger)
    network = builder.create_network(0)
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        said = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ExportError(
            f"TensorRT-RTX {library.__version__} does not read {str(graph)!r}: {said}; leave more "
            "of the graph in float, or export it again"
        )
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    usual = (max(1, max_batch // 2), max(1, max_tokens // 2))
    for number in range(network.num_inputs):
        profile.set_shape(network.get_input(number).name, (1, 1), usual, (max_batch, max_tokens))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f"TensorRT-RTX {library.__version__} reads {str(graph)!r} and cannot build it for "
            f"{max_batch} windows of {max_tokens} tokens; its log says why: export the graph again"
        )
    return RtxReport(
        version=str(library.__version__),
        engine_bytes=int(engine.nbytes),
        seconds=round(time.monotonic() - start, 1),
    )
