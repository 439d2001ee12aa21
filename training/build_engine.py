"""One ONNX graph to one TensorRT engine, in the types that the graph has.

TensorRT 11 is always strongly typed: half precision is in the graph's types, INT8 in its Q/DQ, and
the builder has no flag for either. What the builder measures on the way is kept in a timing cache,
so that the next build is faster and picks the same kernels.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import EngineError, EngineMemoryError, ExportError, SettingsError
from data.manifest import file_sha256
from serving.engines.plan_folder import Profile
from serving.engines.tensor_rt_library import import_tensorrt, tells_of_memory
from training.trt_network import Problems, parse, profile_of


class BuiltEngine(NamedTuple):
    """One build.

    Attributes:
        version: of TensorRT.
        sha256: of the file.
        bytes: of the file.
        seconds: of the build.
        began_warm: whether a timing cache of this GPU and version was there.
    """

    version: str
    sha256: str
    bytes: int
    seconds: float
    began_warm: bool


def build_engine(
    graph: Path,
    out: Path,
    *,
    profiles: Sequence[Profile],
    timing_cache: Path | None = None,
    library: Any = None,
) -> BuiltEngine:
    """Build an engine for the GPU at hand.

    Args:
        graph: ONNX with inputs (batch, tokens), in the types to compute in.
        out: the engine's file.
        profiles: shapes to optimise for, in the order of their numbers.
        timing_cache: file that the builder's timings are read from and added to.
        library: TensorRT's module; imported without. TensorRT-RTX's has the same calls, and
            builds without a GPU.

    Raises:
        SettingsError: there are no profiles.
        ExportError: there is no graph, or TensorRT does not read it.
        EngineError: TensorRT or a GPU is missing, or the builder fails.
        EngineMemoryError: the builder ran out of GPU memory.
    """
    if not profiles:
        raise SettingsError(f"profiles={profiles!r} is empty; choose_profiles makes them")
    if not graph.is_file():
        raise ExportError(f"there is no graph {str(graph)!r} to build from; export the model")
    library = library or import_tensorrt()
    version = str(library.__version__)
    problems = Problems(library)
    try:
        builder = library.Builder(problems.logger)
    except (TypeError, RuntimeError) as error:  # what its binding raises where CUDA has no driver
        raise EngineError(
            f"TensorRT {version} cannot start to build: {error}; run on a machine with an NVIDIA "
            "GPU and its driver"
        ) from error
    start = time.monotonic()
    network, refused = parse(library, builder, graph, problems)
    if refused:
        raise ExportError(
            f"TensorRT {version} refuses {str(graph)!r}: {'; '.join(refused)}; export it again"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    for profile in profiles:
        most = (profile.batch, profile.tokens)
        shapes = profile_of(builder, network, ((1, profile.tokens), most, most))
        if config.add_optimization_profile(shapes) < 0:
            raise EngineError(
                f"TensorRT refuses {profile!r}: the graph has no free batch and token axes; export "
                "the model again"
            )
    warm = use_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        why = "; ".join(problems.errors()) or "it gave no reason"
        failed = EngineMemoryError if tells_of_memory(why) else EngineError
        raise failed(
            f"TensorRT {version} reads {str(graph)!r} and cannot build it for {list(profiles)!r}: "
            f"{why}; build smaller batches, or export the graph again"
        )
    _write(out, bytes(plan))
    _keep_timings(config, timing_cache)
    return BuiltEngine(
        version=version,
        sha256=file_sha256(out),
        bytes=out.stat().st_size,
        seconds=round(time.monotonic() - start, 2),
        began_warm=warm,
    )


def use_timings(config: Any, path: Path | None) -> bool:
    """Let a builder begin with kept timings.

    Args:
        config: of the builder.
        path: file of the timings; None keeps none.

    Returns:
        Whether there were any that fit this GPU and version; else they begin anew.
    """
    kept = path.read_bytes() if path is not None and path.is_file() else b""
    for content in (kept, b""):
        cache = config.create_timing_cache(content)
        # False: those of another GPU or version are refused, not used.
        if cache is not None and config.set_timing_cache(cache, False):  # noqa: FBT003
            return bool(content)
    return False


def _keep_timings(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache()
    if path is not None and cache is not None:
        _write(path, bytes(cache.serialize()))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
