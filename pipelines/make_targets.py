"""What `make` calls each step, and the graphs that have it."""

from collections.abc import Mapping
from typing import Final

ENCODER: Final = ("train-and-deploy", "train-encoder")
LANGUAGE: Final = ("train-and-deploy", "train-language")
EMBEDDING: Final = ("train-embedding",)
ENGINE: Final = ("build-engine",)
LABELLED: Final = (*ENCODER, *EMBEDDING)
TRAFFIC: Final = ("compare-and-promote",)
STEPS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "ingest": (LABELLED, "ingest-labels"),
    "validate": (LABELLED, "validate-labels"),
    "split": (LABELLED, "split-dataset"),
    "pretrain": (ENCODER, "pretrain-encoder"),
    "train-sentiment": (ENCODER, "train-sentiment"),
    "export": (ENCODER, "export-onnx"),
    "quantize": (ENCODER, "quantize-encoder"),
    "evaluate": (ENCODER, "evaluate-sentiment"),
    "gate": (ENCODER, "gate-model"),
    "register": (ENCODER, "register-model"),
    "deploy": (ENCODER, "deploy-challenger"),
    "targets": (LANGUAGE, "build-targets"),
    "pretrain-llm": (LANGUAGE, "pretrain-llm"),
    "train-llm": (LANGUAGE, "train-llm"),
    "merge-llm": (LANGUAGE, "merge-llm"),
    "quantize-llm": (LANGUAGE, "quantize-llm"),
    "compare-llm": (LANGUAGE, "compare-llm"),
    "evaluate-llm": (LANGUAGE, "evaluate-llm"),
    "gate-llm": (LANGUAGE, "gate-llm"),
    "register-llm": (LANGUAGE, "register-llm"),
    "deploy-llm": (LANGUAGE, "deploy-llm"),
    "train-embedding": (EMBEDDING, "train-embedding"),
    "export-embedding": (EMBEDDING, "export-embedding"),
    "quantize-embedding": (EMBEDDING, "quantize-embedding"),
    "check-tensorrt": (EMBEDDING, "check-tensorrt"),
    "evaluate-embedding": (EMBEDDING, "evaluate-embedding"),
    "register-embedding": (EMBEDDING, "register-embedding"),
    "deploy-embedding": (EMBEDDING, "deploy-embedding"),
    "build-engine": (ENGINE, "build-engine"),
    "compare": (TRAFFIC, "compare-arms"),
    "promote": (TRAFFIC, "promote-model"),
}
"""What `make` calls a step → the graphs that have it, and its name there."""
_WHOLE_GRAPHS: Final = {"tune-model": "tune", "evaluate-held-out": "real-data"}
"""Steps without a target of their own → the target that runs their graph."""


def make_target(task: str) -> str:
    """What a user runs for a graph's step: ``export`` for ``export-onnx``."""
    own = {name: target for target, (_, name) in STEPS.items()}
    return (own | _WHOLE_GRAPHS)[task]
