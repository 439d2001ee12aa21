"""How well a batch's memory is predicted: ELECTRA-base's shape on ONNX Runtime and torch.

    python -m bench.memory_model [--max-batch-tokens 512] [--held-out 40]

Prints JSON: for each engine how many held-out batches took more than the p99.9 bound, and the
median error of the prediction. Weights are random; memory does not depend on them.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModel, ElectraConfig

from serving.batching.calibrate import CalibrationRequest, calibrate
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.engines.protocol import Engine
from serving.engines.pytorch import PytorchEngine
from serving.sentence_encoder import OUTPUT, SentenceEncoder

INPUTS: Final = ["input_ids", "attention_mask"]
MAX_TOKENS: Final = 128


def base_encoder(attention: str = "sdpa") -> SentenceEncoder:
    """ELECTRA-base's shape with random weights."""
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=35_000,
        embedding_size=768,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3_072,
        attn_implementation=attention,
    )
    return SentenceEncoder(AutoModel.from_config(config)).eval()


def export_base(path: Path) -> None:
    """The same as an ONNX graph."""
    example = torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0]])
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS}
    torch.onnx.export(
        base_encoder("eager"),
        (example, (example != 0).long()),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=INPUTS,
        output_names=[OUTPUT],
        dynamic_axes=axes | {OUTPUT: {0: "batch"}},
    )


def onnx_runtime(graph: str) -> Engine:
    """Without its arena, which would hide what a batch takes behind what earlier ones took."""
    return OnnxRuntimeEngine(Path(graph), [OUTPUT], threads=1, arena=False)


def pytorch() -> Engine:
    """The source model."""
    return PytorchEngine(base_encoder(), threads=1)


def measure(max_batch_tokens: int, held_out: int) -> dict[str, Any]:
    """Figures of each engine."""
    with tempfile.TemporaryDirectory(prefix="memory-model-") as folder:
        graph = Path(folder) / "model.onnx"
        export_base(graph)
        makers = {"onnx_runtime": {"graph": str(graph)}, "pytorch": {}}
        found = {}
        for name, arguments in makers.items():
            request = CalibrationRequest(
                make=f"bench.memory_model:{name}",
                arguments=dict(arguments),
                max_tokens=MAX_TOKENS,
                max_batch_tokens=max_batch_tokens,
                held_out=held_out,
            )
            calibration = calibrate(request)
            found[name] = calibration.figures().model_dump() | {
                "engine": calibration.engine,
                "source": calibration.source,
                "fitted_on": len(calibration.grid),
                "held_out": held_out,
                "max_batch_tokens": max_batch_tokens,
            }
        return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-batch-tokens", type=int, default=512)
    parser.add_argument("--held-out", type=int, default=40)
    options = parser.parse_args()
    print(json.dumps(measure(options.max_batch_tokens, options.held_out), indent=2))


if __name__ == "__main__":
    main()
