"""OpenVINO on a CPU: fp32, bf16, and INT8 with activations scaled per token or by calibration.

Lengths go in as they are: rounding them up to a multiple of 4, 8 or 16 costs 2%, 4% and 10%, and
a shape seen for the first time costs next to nothing.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from data.errors import EngineError, EngineMemoryError
from serving.engines.protocol import Outputs, TokenIds

if TYPE_CHECKING:
    import openvino

Precision = Literal["fp32", "bf16", "int8"]
SHAPES_KEPT: Final = 16
"""Compiled kernels kept, by shape. OpenVINO's own default keeps 5,000: 1.8 MB for every new shape
of a six-layer model, for 5% of speed on shapes that come again."""


class OpenVinoEngine:
    """Serves a graph of the dynamo exporter.

    INT8 is either explicit Q/DQ in the graph (static activations, by calibration), or made here
    from a float graph: weights per output channel, and activations per token in groups, which
    needs no calibration. Neither looks at batch-mates.
    """

    batch_invariant = True
    computes_padding = True
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(
        self,
        graph: Path,
        outputs: Sequence[str],
        *,
        precision: Precision,
        threads: int = 1,
        group_size: int | None = 128,
    ):
        """Load a graph.

        Args:
            graph: with inputs ``input_ids`` and ``attention_mask``, both (batch, tokens).
            outputs: names of the outputs to answer with.
            precision: of the matrix products. The rest of an INT8 graph is bf16 where the
                processor has it.
            threads: compute threads of one batch; as many batches run side by side as fit the
                processors of this process.
            group_size: features that share one scale within a token, where INT8 is made here;
                None is as many as all layers allow, faster by 8% and less exact.

        Raises:
            EngineError: OpenVINO refuses the file, or cannot compute in this precision here.
        """
        ov = import_openvino()
        try:
            self._outputs = list(outputs)
            self._compiled, kind = _compile(graph, precision, threads, group_size)
            self._ports = {name: self._compiled.output(name) for name in outputs}
        except (RuntimeError, OSError) as error:
            raise EngineError(
                f"OpenVINO cannot load {str(graph)!r}: {error}; export the model again"
            ) from error
        self._idle: list[openvino.InferRequest] = []
        self.name = f"openvino-{ov.__version__.split('-')[0]}-{kind}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        # A request belongs to one caller at a time; taking from a list is atomic.
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            request.infer({"input_ids": input_ids, "attention_mask": attention_mask})
            values = {
                name: np.array(request.get_tensor(port).data, dtype=np.float32)
                for name, port in self._ports.items()
            }
        except (RuntimeError, MemoryError) as error:
            failed = EngineMemoryError if _out_of_memory(error) else EngineError
            raise failed(
                f"OpenVINO failed on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        self._idle.append(request)
        return values

    def forget(self) -> None:
        """Give back all that is kept between batches; the next one takes it anew."""
        self._idle.clear()
        self._compiled.release_memory()


def import_openvino() -> ModuleType:
    """The library, without the converter that it would import, whose telemetry writes to ``~``.

    Raises:
        EngineError: it is not installed.
    """
    converter = "openvino.tools.ovc"
    fresh = "openvino" not in sys.modules and converter not in sys.modules
    if fresh:
        sys.modules[converter] = None  # type: ignore[assignment]  # Python's way to say: not here
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise EngineError(
            "openvino is not installed; run `make setup`, which installs locks/main.txt"
        ) from error
    finally:
        if fresh:
            del sys.modules[converter]


def _compile(
    graph: Path, precision: Precision, threads: int, group_size: int | None
) -> tuple["openvino.CompiledModel", str]:
    """The model, and its precision with how INT8 activations are scaled."""
    from serving.engines import open_vino_int8 as int8

    ov = import_openvino()
    core = ov.Core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not has_bf16:
        raise EngineError("this processor has no bf16 instructions; serve 'openvino-fp32'")
    streams = max(1, len(os.sched_getaffinity(0)) // threads)
    hint = "bf16" if precision != "fp32" and has_bf16 else "f32"
    settings: dict[str, object] = {
        "INFERENCE_NUM_THREADS": threads * streams,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": hint,
        "CPU_RUNTIME_CACHE_CAPACITY": SHAPES_KEPT,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    if precision != "int8":
        return core.compile_model(core.read_model(graph), "CPU", settings), precision
    model = int8.read_in_float32(core, graph)
    if int8.is_quantised(model):
        expected = int8.quantised_products(model)
        compiled = core.compile_model(model, "CPU", settings)
        int8.check_static(compiled, expected, graph)
        return compiled, "int8-static"
    shapes, group = int8.compress(model, group_size, graph)
    settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = group
    int8.check_dynamic(core, settings, shapes, group)
    kind = "int8-rows" if group_size is None else "int8"
    return core.compile_model(model, "CPU", settings), kind


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ("bad_alloc", "bad allocation", "allocate memory")
    )
