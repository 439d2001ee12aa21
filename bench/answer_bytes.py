"""What writing an answer costs beside computing it: vectors and predictions to bytes.

    python -m bench.answer_bytes

A batch of 64 texts with the lengths of reviews goes through an encoder of ELECTRA-base's shape
(random weights, torch on one thread), and its answer is written in every form. Process CPU time;
each part is repeated and the median taken. Writes var/bench/answer_bytes.json.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import torch
from transformers import ElectraConfig, ElectraModel

from bench.corpus import draw_windows
from bench.source_models import SHAPE
from data.contract import CONTRACT_VERSION
from serving.batching.planner import run_in_batches
from serving.encoder import MultiTaskElectra
from serving.engines.pytorch import PytorchEngine
from serving.gateway.embedding_body import embeddings_body
from serving.logits import Logits
from serving.model_folder import ModelSpec
from serving.prediction_json import prediction_json
from serving.predictions import ProbabilityArrays, probabilities, to_predictions
from serving.sentence_encoder import OUTPUT, SentenceEncoder

TEXTS: Final = 64
OUT: Final = Path("var/bench/answer_bytes.json")


def cpu_s(call: Callable[[], object], repeats: int) -> float:
    """Median process CPU seconds of a call."""
    took = []
    for _ in range(repeats):
        started = time.process_time()
        call()
        took.append(time.process_time() - started)
    return statistics.median(took)


def measure(*, shape: Mapping[str, int] = SHAPE, repeats: int = 3) -> dict[str, Any]:
    """Milliseconds of each part, and writing's share of writing and computing together.

    Args:
        shape: of the encoder, as ``ElectraConfig`` takes it.
        repeats: of each computation.
    """
    torch.manual_seed(0)
    config = ElectraConfig(**shape)
    windows = draw_windows(TEXTS, shape["vocab_size"])
    tokens = sum(map(len, windows))
    outputs, embed_s = compute(SentenceEncoder(ElectraModel(config).eval()), windows, repeats)
    heads, analyze_s = compute(MultiTaskElectra(config).eval(), windows, repeats)
    written = vector_writers(outputs[OUTPUT], tokens), prediction_writers(Logits(**heads))
    parts = {}
    for writers, compute_s in zip(written, (embed_s, analyze_s), strict=True):
        for name, write in writers.items():
            write_s = cpu_s(lambda write=write: [write() for _ in range(20)], 5) / 20
            parts[name] = {
                "write_ms": write_s * 1e3,
                "compute_ms": compute_s * 1e3,
                "share": write_s / (write_s + compute_s),
                # An engine as fast as this makes writing a tenth of the whole.
                "tenth_at_tokens_per_s": tokens / (9.0 * write_s),
            }
    conditions = (
        f"{TEXTS} texts, {tokens} tokens, hidden size {config.hidden_size}, "
        f"{config.num_hidden_layers} layers, torch fp32, one thread, process CPU time, medians"
    )
    return {"conditions": conditions, "parts": parts}


def compute(model: Any, windows: list[list[int]], repeats: int) -> tuple[dict[str, Any], float]:
    """The engine's outputs, and CPU seconds."""
    engine = PytorchEngine(model, threads=1)

    def run() -> dict[str, Any]:
        return run_in_batches(engine, windows, 0, token_budget=1024)

    return run(), cpu_s(run, repeats)


def vector_writers(vectors: Any, tokens: int) -> dict[str, Callable[[], object]]:
    """Ways to write vectors."""
    return {
        "vectors as floats": lambda: embeddings_body(vectors, model="m", tokens=tokens),
        "vectors as base64": lambda: embeddings_body(
            vectors, model="m", tokens=tokens, encoding_format="base64"
        ),
        "vectors as Python lists, for comparison": lambda: orjson.dumps(
            [{"embedding": vector.tolist()} for vector in vectors]
        ),
    }


def prediction_writers(logits: Logits) -> dict[str, Callable[[], object]]:
    """Ways to decode and write predictions."""
    spec = ModelSpec(
        contract_version=CONTRACT_VERSION,
        format="torch-fp32",
        architecture="electra",
        max_tokens=128,
        overlap_tokens=32,
    )
    counts = np.ones(len(logits), dtype=np.int64)

    def arrays() -> ProbabilityArrays:
        return probabilities(logits, spec.temperatures)

    return {
        "predictions as JSON": lambda: prediction_json(arrays(), counts, spec),
        "predictions by way of objects, for comparison": lambda: [
            one.model_dump_json() for one in to_predictions(arrays(), counts, spec)
        ],
    }


def main() -> None:
    """Measure, print and keep."""
    measured = measure()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(orjson.dumps(measured, option=orjson.OPT_INDENT_2))
    print(measured["conditions"])
    for name, part in measured["parts"].items():
        print(
            f"{name}: {part['write_ms']:.2f} ms, {part['share']:.2%} beside the engine; a tenth at "
            f"{part['tenth_at_tokens_per_s']:,.0f} tokens/s"
        )


if __name__ == "__main__":
    main()
