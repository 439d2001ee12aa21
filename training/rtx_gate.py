"""Is a graph shaped as TensorRT takes it? TensorRT-RTX's parser and builder say so, without a GPU.

A gate, not TensorRT: another product with the same parser and API, which builds for consumer GPUs
only, so nothing built here is served. What it refuses, TensorRT refuses too (a bias in INT32, an
asymmetric scale, types that do not fit); how fast a graph is, or what a data-centre GPU makes of
it, it does not say. It runs in a process of its own, because a builder that crashes takes its
process with it.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from data.errors import ExportError

PACKAGE: Final = "tensorrt-rtx-cu13-bindings"
CAPABILITY: Final = "8.9"
LIMIT_S: Final = 300.0


class RtxReport(BaseModel):
    """What TensorRT-RTX made of a graph it accepted.

    Attributes:
        version: of TensorRT-RTX.
        compute_capability: it was built for.
        layers: of the parsed network.
        engine_bytes: of the engine, which is thrown away.
        build_s: seconds, starting its process included.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    compute_capability: str
    layers: int
    engine_bytes: int
    build_s: float


def check_tensorrt_shape(
    graph: Path,
    *,
    max_batch: int,
    max_tokens: int,
    compute_capability: str = CAPABILITY,
    limit_s: float = LIMIT_S,
) -> RtxReport:
    """Parse and build a graph on the CPU.

    Args:
        graph: takes ``input_ids`` and ``attention_mask``, (batch, tokens).
        max_batch: largest batch of the profile.
        max_tokens: longest window of the profile.
        compute_capability: of a GPU that TensorRT-RTX knows.
        limit_s: after so many seconds the builder is ended.

    Raises:
        ExportError: it is refused, with the parser's or builder's own words and the node; the
            builder crashed or took too long.
    """
    started = perf_counter()
    asked = [str(graph), str(max_batch), str(max_tokens), compute_capability]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "training.rtx_gate", *asked],
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"TensorRT-RTX did not build {str(graph)!r} within {limit_s!r} s; raise limit_s, or "
            "lower max_batch and max_tokens"
        ) from error
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise ExportError(
            f"TensorRT-RTX's builder ended with status {done.returncode!r} on {str(graph)!r}: "
            f"{done.stderr[-500:]!r}; leave more of the graph in float"
        ) from error
    if problems := answer.get("problems"):
        raise ExportError(
            f"TensorRT-RTX refuses {str(graph)!r}: {'; '.join(problems)}; TensorRT takes symmetric "
            "INT8 Q/DQ without quantised biases, and one float type at both sides of a product"
        )
    return RtxReport(
        version=version(PACKAGE),
        compute_capability=compute_capability,
        layers=answer["layers"],
        engine_bytes=answer["engine_bytes"],
        build_s=perf_counter() - started,
    )


def _build(graph: Path, max_batch: int, max_tokens: int, capability: str) -> dict[str, Any]:
    """In the child process: what was built, or the problems in the library's words."""
    from training.trt_network import Problems, parse, profile_of

    trt: Any = import_module("tensorrt_rtx_bindings")
    problems = Problems(trt)
    builder = trt.Builder(problems.logger)
    network, refused = parse(trt, builder, graph, problems)
    if refused:
        return {"problems": refused}
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    name = f"SM{capability.replace('.', '')}"
    if name not in trt.ComputeCapability.__members__:
        known = sorted(trt.ComputeCapability.__members__)
        return {"problems": [f"compute_capability {capability!r} is none of {known!r}"]}
    config.set_compute_capability(trt.ComputeCapability.__members__[name], 0)
    shapes = ((1, 1), (max(1, max_batch // 2), max(1, max_tokens // 2)), (max_batch, max_tokens))
    config.add_optimization_profile(profile_of(builder, network, shapes))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return {"problems": problems.errors() or ["the builder gave no reason"]}
    return {"layers": network.num_layers, "engine_bytes": engine.nbytes}


def main(arguments: Sequence[str]) -> int:
    """The child process: prints one line of JSON."""
    graph, batch, tokens, capability = arguments
    print(json.dumps(_build(Path(graph), int(batch), int(tokens), capability)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
