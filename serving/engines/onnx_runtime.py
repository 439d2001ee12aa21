"""ONNX Runtime on a CPU: the default engine where there is no GPU."""

from pathlib import Path

import onnxruntime as ort

from data.errors import EngineError
from serving.engines.protocol import Logits, TokenIds

OUTPUTS = ("sentiment", "intensity", "emotions", "aspects")


class OnnxRuntimeEngine:
    """Serves ``model.onnx``, fp32 or INT8."""

    def __init__(self, graph: Path, *, threads: int = 1):
        """Load a graph.

        Raises:
            EngineError: ONNX Runtime refuses the file.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Lengths change with every batch; a cached plan per shape would only grow memory.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(graph), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            raise EngineError(
                f"ONNX Runtime cannot load {str(graph)!r}: {error}; export the model again"
            ) from error
        self.name = f"onnxruntime-{ort.__version__}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """See ``Engine.run``."""
        try:
            values = self._session.run(
                OUTPUTS, {"input_ids": input_ids, "attention_mask": attention_mask}
            )
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed on a batch of shape {input_ids.shape!r}: {error}"
            ) from error
        return Logits(*values)
