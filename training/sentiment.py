"""Fine-tuning of the multi-task classifier.

In: a split, an encoder and a recipe. Out: a torch model folder with calibrated probabilities,
the loss curve, and how long the reviews were. Long reviews are read in windows, never cut.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import set_seed

from data.contract import CONTRACT_VERSION, SENTIMENTS, TASKS, LabelledReview
from data.errors import DataUnfitError
from data.manifest import (
    Manifest,
    canonical_digest,
    read_labelled_reviews,
    read_manifest,
    write_manifest,
)
from serving.analyzer import Analyzer
from serving.encoder import MultiTaskElectra, load_encoder, save_encoder
from serving.engines.pytorch import PytorchEngine
from serving.model_folder import MODEL_KIND, ModelSpec, write_spec
from serving.windows import merge_windows
from training.batches import Collator, ReviewTokens, Targets, targets_of
from training.calibration import calibrate
from training.losses import ClassWeights
from training.pretraining import ENCODER_KIND, start_from, token_frequency
from training.recipe import Recipe
from training.tokenizer import segment
from training.trainer import PretrainableElectra, StageSettings, labelled_loss, run_stage


def _read_part(split: Path, part: str) -> list[LabelledReview]:
    return list(read_labelled_reviews(split / f"{part}.jsonl"))


def _check_trainable(rows: list[LabelledReview]) -> None:
    seen = {row.label.sentiment for row in rows if row.label.sentiment is not None}
    if len(seen) < 2:  # noqa: PLR2004  # a classifier tells at least two classes apart
        raise DataUnfitError(
            f"the training part has {len(rows)} reviews with sentiments {sorted(seen)!r}: at least "
            f"two of {list(SENTIMENTS)!r} are needed; label more reviews, or split again"
        )


def _length_report(tokenizer: Tokenizer, texts: list[str], recipe: Recipe) -> dict[str, float]:
    lengths = np.asarray([len(ids) + 2 for ids in segment(tokenizer, texts)])
    return {
        "tokens_p50": float(np.percentile(lengths, 50)),
        "tokens_p95": float(np.percentile(lengths, 95)),
        "tokens_p99": float(np.percentile(lengths, 99)),
        "tokens_max": float(lengths.max()),
        "windowed_share": float((lengths > recipe.windows.max_tokens).mean()),
        "truncated_share": 0.0,
    }


def fine_tune(
    model: MultiTaskElectra,
    tokenizer: Tokenizer,
    rows: list[LabelledReview],
    targets: Targets,
    recipe: Recipe,
    work_dir: Path,
) -> list[tuple[int, float]]:
    """Fit all heads and the encoder in place; returns the loss curve."""
    settings = recipe.fine_tuning
    tokens = ReviewTokens(
        tokenizer, [row.review.text for row in rows], dropout=settings.segmentation_dropout
    )
    vocabulary = tokenizer.get_vocab_size()
    wrapped = PretrainableElectra(model, token_frequency(tokens, vocabulary))
    return run_stage(
        wrapped,
        tokens,
        Collator(
            tokens,
            targets,
            tokenizer,
            recipe.windows.max_tokens,
            recipe.windows.overlap_tokens,
            settings.masked_share,
            masked_targets=settings.masked_weight > 0,
        ),
        labelled_loss(
            ClassWeights.from_targets(targets, power=settings.class_weight_power),
            settings.loss_weights,
            label_smoothing=settings.label_smoothing,
            masked_weight=settings.masked_weight,
        ),
        StageSettings(
            name="fine-tuning",
            epochs=settings.epochs,
            batch_tokens=settings.batch_tokens,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_share=settings.warmup_share,
            embedding_factor=settings.embedding_learning_rate_factor,
            average_decay=settings.average_weights_decay,
            save_every_steps=settings.save_every_steps,
            seed=recipe.seed,
            bf16=recipe.bf16,
        ),
        work_dir=work_dir,
    )


def _calibrated_spec(
    folder: Path, tokenizer: Tokenizer, spec: ModelSpec, rows: list[LabelledReview], threads: int
) -> ModelSpec:
    if not rows:
        return spec
    engine = PytorchEngine(load_encoder(folder), threads=threads)
    manifest = Manifest(
        kind=MODEL_KIND, contract_version=CONTRACT_VERSION, digest="", files={}, facts={}
    )
    analyzer = Analyzer(tokenizer, engine, spec, manifest)
    windows = analyzer.windows([row.review.text for row in rows])
    logits = merge_windows(analyzer.logits(windows), windows)
    return calibrate(spec, logits, targets_of([row.label for row in rows]))


def train_sentiment(
    split: Path, encoder: Path, recipe: Recipe, out: Path, *, checkpoints: Path
) -> Manifest:
    """Train the classifier.

    Args:
        split: folder of kind "split".
        encoder: folder of kind "encoder".
        recipe: see training/recipe.py.
        out: empty folder for the model.
        checkpoints: survives a kill; a run that was cut off goes on from there.

    Raises:
        DataUnfitError: fewer than two sentiments in the training part.
        ArtifactError: an input is missing, altered, or does not fit.
    """
    split_manifest = read_manifest(split, "split")
    encoder_manifest = read_manifest(encoder, ENCODER_KIND)
    train, validation = _read_part(split, "train"), _read_part(split, "validation")
    _check_trainable(train)
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    set_seed(recipe.seed)
    model, tokenizer = start_from(encoder, recipe)
    inputs = canonical_digest([recipe.digest, split_manifest.digest, encoder_manifest.digest])
    work = checkpoints / f"sentiment-{inputs[:16]}"
    targets = targets_of([row.label for row in train])
    curve = fine_tune(model, tokenizer, train, targets, recipe, work)
    save_encoder(model, out)
    tokenizer.save(str(out / "tokenizer.json"))
    spec = ModelSpec(
        contract_version=CONTRACT_VERSION,
        format="torch-fp32",
        architecture="electra",
        max_tokens=recipe.windows.max_tokens,
        overlap_tokens=recipe.windows.overlap_tokens,
    )
    write_spec(out, _calibrated_spec(out, tokenizer, spec, validation, recipe.threads))
    manifest = write_manifest(
        out,
        MODEL_KIND,
        {
            "format": spec.format,
            "recipe": recipe.name,
            "recipe_digest": recipe.digest,
            "pretrained": recipe.encoder.pretrained,
            "split_digest": split_manifest.digest,
            "encoder_digest": encoder_manifest.digest,
            "snapshot_id": split_manifest.facts.get("snapshot_id"),
            "parameters": sum(p.numel() for p in model.parameters()),
            "rows": {"train": len(train), "validation": len(validation)},
            "labelled": _labelled_rows(targets),
            "lengths": _length_report(tokenizer, [row.review.text for row in train], recipe),
            "curve": curve,
        },
    )
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _labelled_rows(targets: Targets) -> dict[str, Any]:
    return {task: int(getattr(targets, f"{task}_mask").sum()) for task in TASKS}
