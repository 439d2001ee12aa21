"""A table of formats: what each costs in bytes and in answers, so that the choice is shown.

Every recipe is applied to the same merged model, and scored on held-out answers beside it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from data.artifacts import TARGETS_KIND
from data.examples import read_examples
from data.manifest import read_manifest
from training.answer_scores import (
    Agreement,
    Comparison,
    Rendered,
    answer_logits,
    load_scored_model,
    load_tokenizer,
    pick_examples,
    render_examples,
)
from training.quantize_llm import RECIPES, QuantizationRecipe, quantize_language_model
from training.stored_weights import weight_bytes


class FormatRow(BaseModel):
    """One format beside its parent.

    Attributes:
        format: the parent's own in the first row.
        bytes: of the weights.
        size: of the parent's bytes, as a share.
        perplexity: of held-out gold answers.
        top1_agreement: share of answer tokens where it holds the parent's likeliest.
        kl_mean: mean divergence from the parent, nats a token.
        speed: tokens a second over the parent's, in this process and the same run, reading whole
            answers. Weights are dequantised here, so it says what the format costs without its
            kernels; how fast vLLM is with them is measured there.
    """

    model_config = ConfigDict(frozen=True)

    format: str
    bytes: int
    size: float
    perplexity: float
    top1_agreement: float
    kl_mean: float
    speed: float


def compare_formats(
    merged: Path,
    targets: Path,
    split: Path | None,
    out: Path,
    *,
    recipes: Sequence[QuantizationRecipe] = RECIPES,
    part: str = "validation",
    examples: int = 64,
    samples: int = 256,
    seed: int = 0,
) -> list[FormatRow]:
    """Quantise by every recipe and score each beside the parent.

    Args:
        merged: artifact of kind language_model, in float.
        targets: artifact of kind targets.
        split: the split behind them, or None.
        out: folder; each recipe's model is written to ``out/<recipe>``.
        recipes: which formats.
        part: of the targets; what is scored.
        examples: how many of it.
        samples: texts to calibrate on.
        seed: of the choice of both.

    Raises:
        ExportError: a recipe skipped a layer.
        ArtifactError: an input is missing or altered.
    """
    read_manifest(targets, TARGETS_KIND)
    for recipe in recipes:
        quantize_language_model(
            merged, targets, split, out / recipe, recipe=recipe, samples=samples, seed=seed
        )
    parent = load_scored_model(merged)
    rendered = render_examples(
        load_tokenizer(merged),
        pick_examples(read_examples(targets / f"{part}.jsonl"), seed),
        count=examples,
        max_tokens=int(parent.config.max_position_embeddings),
    ).rendered
    rows = [_row(merged, parent, parent, rendered, weight_bytes(merged))]
    for recipe in recipes:
        model = load_scored_model(out / recipe)
        rows.append(_row(out / recipe, parent, model, rendered, rows[0].bytes))
    return rows


def _row(
    folder: Path, parent: Any, model: Any, rendered: Sequence[Rendered], whole: int
) -> FormatRow:
    found, speed = _score(parent, model, rendered)
    size = weight_bytes(folder)
    return FormatRow(
        format=str(read_manifest(folder).facts["format"]),
        bytes=size,
        size=size / whole,
        perplexity=found.perplexity_after,
        top1_agreement=found.top1_agreement,
        kl_mean=found.kl_mean,
        speed=speed,
    )


def _score(parent: Any, model: Any, rendered: Sequence[Rendered]) -> tuple[Agreement, float]:
    """How a model agrees with its parent, and its speed over the parent's, read in turn."""
    comparison = Comparison()
    spent = [0.0, 0.0]
    for each in (parent, model):
        answer_logits(each, rendered[0])  # the first pass of a model sets up what later ones use
    for text in rendered:
        logits = []
        for number, each in enumerate((parent, model)):
            start = _clock()
            logits.append(answer_logits(each, text))
            spent[number] += _clock() - start
        comparison.add(text, *logits)
    return comparison.agreement(), spent[0] / spent[1]


def _clock() -> float:
    """Seconds: of this process on a CPU, which others share; of the clock on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
