"""ONNX Runtime on a CPU: the default engine where there is no GPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import onnxruntime as ort

from data.errors import EngineError, EngineMemoryError
from serving.engines.protocol import Outputs, TokenIds

_BY_BATCH: Final = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QAttention"}
_QUANTISED: Final = {
    *_BY_BATCH,
    "MatMulInteger",
    "MatMulNBits",
    "QuantizeLinear",
    "DequantizeLinear",
}


class OnnxRuntimeEngine:
    """Serves a graph, fp32 or INT8.

    A dynamically quantised graph scales its activations by the range of the whole batch, so its
    answers depend on their batch-mates.
    """

    computes_padding = True
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(
        self, graph: Path, outputs: Sequence[str], *, threads: int = 1, arena: bool = True
    ):
        """Load a graph.

        Args:
            graph: with inputs ``input_ids`` and ``attention_mask``, both (batch, tokens).
            outputs: names of the outputs to answer with.
            threads: compute threads.
            arena: keep memory between batches, 30% faster; without it memory can be measured.

        Raises:
            EngineError: ONNX Runtime refuses the file.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Lengths change with every batch; a cached plan per shape would only grow memory.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = arena
        # Waiting threads sleep. Spinning, they take cores from the engines of other models, and
        # their CPU time is counted with whatever runs next; one thread alone never spins.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(graph), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            raise EngineError(
                f"ONNX Runtime cannot load {str(graph)!r}: {error}; export the model again"
            ) from error
        self._outputs = list(outputs)
        kinds = _operators(graph)
        precision = "int8" if kinds & _QUANTISED else "fp32"
        self.name = f"onnxruntime-{ort.__version__}-{precision}"
        self.batch_invariant = not kinds & _BY_BATCH

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        try:
            values = self._session.run(
                self._outputs, {"input_ids": input_ids, "attention_mask": attention_mask}
            )
        except Exception as error:
            failed = EngineMemoryError if _out_of_memory(error) else EngineError
            raise failed(
                f"ONNX Runtime failed on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        return dict(zip(self._outputs, values, strict=True))


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(
        words in str(error)
        for words in ("Failed to allocate memory", "bad_alloc", "bad allocation")
    )


def _operators(graph: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(str(graph), load_external_data=False).graph.node}
