"""A graph as a TensorRT network: parsed strongly typed, with what the library complained of.

Every function takes the module, so that TensorRT and TensorRT-RTX, whose API is the same, share it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

Shape = tuple[int, int]
"""(batch, tokens)."""

_NO_DRIVER: Final = "cudaError"
"""Building needs no driver; the library says so again with every other error."""


class Problems:
    """Keeps what the library reports as errors; its logger belongs to the library's classes."""

    def __init__(self, trt: Any):
        """Make a logger of the module's own kind."""
        found: list[str] = []

        class _Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in {trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR}:
                    found.append(message.strip())

        self._found = found
        self.logger = _Logger()

    def errors(self) -> list[str]:
        """All so far, each once."""
        return [text for text in dict.fromkeys(self._found) if _NO_DRIVER not in text]


def parse(trt: Any, builder: Any, graph: Path, problems: Problems) -> tuple[Any, list[str]]:
    """The network, and why the parser refused the graph: empty if it did not."""
    flags = trt.NetworkDefinitionCreationFlag.__members__
    # TensorRT 11 knows no other kind of network and may drop the flag.
    typed = 1 << int(flags["STRONGLY_TYPED"]) if "STRONGLY_TYPED" in flags else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, problems.logger)
    # Read whole and given as bytes, weights lie inside the file.
    if parser.parse(graph.read_bytes()):
        return network, []
    refused = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        words = " ".join(line for line in error.desc().splitlines() if _NO_DRIVER not in line)
        refused.append(f"node {error.node_name()!r} ({error.node_operator()}): {words}")
    return network, refused or problems.errors() or ["the parser gave no reason"]


def profile_of(builder: Any, network: Any, shapes: Sequence[Shape]) -> Any:
    """An optimisation profile: smallest, commonest and largest shape of both inputs."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        profile.set_shape(network.get_input(index).name, *shapes)
    return profile
