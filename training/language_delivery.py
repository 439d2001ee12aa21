"""The steps between a quantised language model and its gate, from folders.

evaluate → gate. Each function is what one component calls: it loads the engines that would serve,
reads the artifacts it is given, and leaves a sealed folder.
"""

from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field

from data.manifest import Manifest
from serving.engines.chat_transformers import TransformersChatEngine
from serving.language_model import load_language_model
from training.evaluation.language.comparisons import LanguageGatePolicy
from training.evaluation.language.evaluation import FREE_EXAMPLES, evaluate_language_models
from training.language_gate import language_gate

CANDIDATE: Final = "candidate"
PARENT: Final = "parent"


class LanguageEvaluationSettings(BaseModel):
    """How an evaluation is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    resamples: int = Field(default=2000, ge=100)
    repeats: int = Field(default=2, ge=1, description="Temperature 0 under batching still varies.")
    free: int = Field(
        default=FREE_EXAMPLES, ge=0, description="Examples asked without a schema, for raw rates."
    )
    threads: int = Field(default=2, ge=1, description="Of torch, in this process.")


def evaluate_language_candidate(
    targets: Path,
    *,
    split: Path,
    merged: Path,
    quantized: Path,
    settings: LanguageEvaluationSettings,
    out: Path,
) -> Manifest:
    """Measure the INT8 candidate and its merged parent through the engine that would serve.

    Raises:
        ArtifactError: an input is missing or altered.
        EngineError: an engine answers nothing.
    """
    torch.set_num_threads(settings.threads)
    folders = {CANDIDATE: quantized, PARENT: merged}
    engines = {
        name: TransformersChatEngine(load_language_model(folder))
        for name, folder in folders.items()
    }
    return evaluate_language_models(
        targets,
        engines,
        out,
        split=split,
        repeats=settings.repeats,
        free=settings.free,
        folders=folders,
        seed=settings.seed,
        resamples=settings.resamples,
    )


def gate_language_candidate(evaluation: Path, out: Path, *, policy: LanguageGatePolicy) -> Manifest:
    """Judge what ``evaluate_language_candidate`` measured.

    Raises:
        GateError: a model or figure is missing.
    """
    return language_gate(evaluation, out, policy=policy, candidate=CANDIDATE, parent=PARENT)
