"""An encoder made on the spot: tokenizer, masked tokens, then labels of synthetic reviews.

In: a recipe, and unlabelled texts if there are any. Out: an encoder folder (tokenizer.json,
config.json, model.safetensors) that fine-tuning starts from. A recipe that names a pretrained
encoder has nothing to make here: its weights and tokenizer are brought into the same form.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, ElectraConfig, ElectraModel, set_seed

from data.contract import LabelledReview
from data.errors import ArtifactError, SettingsError
from data.manifest import Manifest, canonical_digest, read_labelled_reviews, write_manifest
from data.sources.synthetic import generate
from serving.encoder import MultiTaskElectra, load_encoder, save_encoder
from training.batches import Collator, ReviewTokens, targets_of
from training.losses import ClassWeights
from training.recipe import Recipe
from training.tokenizer import SPECIAL_TOKENS, segment, train_tokenizer
from training.trainer import (
    PretrainableElectra,
    StageSettings,
    labelled_loss,
    masked_token_loss,
    run_stage,
    without_dropout,
)
from training.word_vectors import word_vectors

ENCODER_KIND: Final = "encoder"
MAX_POSITIONS: Final = 512


def token_frequency(tokens: ReviewTokens, vocabulary: int) -> torch.Tensor:
    """(vocabulary,) share of each token in a corpus, none of them zero."""
    counts = np.ones(vocabulary)
    for ids in tokens.ids:
        np.add.at(counts, ids, 1.0)
    return torch.tensor(counts / counts.sum(), dtype=torch.float32)


def new_encoder(recipe: Recipe, tokenizer: Tokenizer) -> MultiTaskElectra:
    """A model of the recipe's sizes with fresh weights."""
    sizes = recipe.encoder
    config = ElectraConfig(
        vocab_size=tokenizer.get_vocab_size(),
        embedding_size=sizes.embedding_size,
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.attention_heads,
        intermediate_size=sizes.intermediate_size,
        hidden_dropout_prob=sizes.dropout,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=tokenizer.token_to_id("[PAD]"),
        # Wider than the usual 0.02, which suits 768-wide layers and starves narrow ones.
        initializer_range=0.05,
    )
    return MultiTaskElectra(config, head_dropout=recipe.fine_tuning.head_dropout)


def _load_pretrained(name: str) -> tuple[ElectraModel, Any]:
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.model_type != "electra":
        raise ValueError(f"it is of type {config.model_type!r}, not 'electra'")
    electra = ElectraModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    # Where there is no vocabulary, transformers makes a tokenizer of special tokens alone.
    if not config.vocab_size / 2 < len(tokenizer) <= config.vocab_size:
        raise ValueError(f"its tokenizer has {len(tokenizer)} tokens, not {config.vocab_size}")
    return electra, tokenizer


def adopt_pretrained(name: str, out: Path) -> None:
    """Bring a pretrained ELECTRA's weights and tokenizer into an encoder folder.

    Raises:
        SettingsError: it cannot be had, is not an ELECTRA, or asks to run code of its own.
    """
    try:
        electra, tokenizer = _load_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        raise SettingsError(
            f"encoder.pretrained={name!r} cannot be loaded: {error}; check the name, or that the "
            "hub can be reached, or pass a folder, or remove the key to make an encoder on the spot"
        ) from error
    model = MultiTaskElectra(cast("ElectraConfig", electra.config))
    model.electra = electra
    save_encoder(model, out)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))


def _masked_stage(
    model: PretrainableElectra,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    recipe: Recipe,
    work: Path,
) -> list[tuple[int, float]]:
    tokens = ReviewTokens(tokenizer, texts, dropout=recipe.fine_tuning.segmentation_dropout)
    model.token_frequency.copy_(token_frequency(tokens, tokenizer.get_vocab_size()))
    settings = recipe.pretraining
    return run_stage(
        model,
        tokens,
        Collator(
            tokens,
            None,
            tokenizer,
            recipe.windows.max_tokens,
            recipe.windows.overlap_tokens,
            settings.masked_share,
            masked_targets=True,
        ),
        masked_token_loss,
        StageSettings(
            name="masked tokens",
            epochs=settings.masked_epochs,
            batch_tokens=settings.batch_tokens,
            learning_rate=settings.masked_learning_rate,
            save_every_steps=recipe.fine_tuning.save_every_steps,
            seed=recipe.seed,
            bf16=recipe.bf16,
        ),
        work_dir=work,
    )


def _synthetic_stage(
    model: PretrainableElectra,
    tokenizer: Tokenizer,
    reviews: Sequence[LabelledReview],
    recipe: Recipe,
    work: Path,
) -> list[tuple[int, float]]:
    settings, tuning = recipe.pretraining, recipe.fine_tuning
    tokens = ReviewTokens(
        tokenizer, [row.review.text for row in reviews], dropout=tuning.segmentation_dropout
    )
    targets = targets_of([row.label for row in reviews])
    return run_stage(
        model,
        tokens,
        Collator(
            tokens,
            targets,
            tokenizer,
            recipe.windows.max_tokens,
            recipe.windows.overlap_tokens,
            tuning.masked_share,
        ),
        labelled_loss(
            ClassWeights.from_targets(targets, power=0.0),
            tuning.loss_weights,
            label_smoothing=tuning.label_smoothing,
        ),
        StageSettings(
            name="synthetic labels",
            epochs=settings.synthetic_epochs,
            batch_tokens=settings.batch_tokens,
            learning_rate=settings.synthetic_learning_rate,
            weight_decay=tuning.weight_decay,
            save_every_steps=tuning.save_every_steps,
            seed=recipe.seed,
            bf16=recipe.bf16,
        ),
        work_dir=work,
    )


def pretrain_encoder(
    recipe: Recipe, out: Path, *, reviews: Path | None, checkpoints: Path
) -> Manifest:
    """Make the encoder that fine-tuning starts from.

    Args:
        recipe: sizes and stages.
        out: empty folder for the encoder.
        reviews: a split folder whose training texts (never their labels, never another part)
            join the corpus; none for synthetic reviews alone.
        checkpoints: survives a kill; a run that was cut off goes on from there.

    Raises:
        SettingsError: the recipe's pretrained encoder cannot be had, or there is no text at all.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    if recipe.encoder.pretrained:
        adopt_pretrained(recipe.encoder.pretrained, out)
        return write_manifest(
            out, ENCODER_KIND, {"pretrained": recipe.encoder.pretrained, "curves": {}}
        )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if recipe.threads > 1 else "false")
    settings = recipe.pretraining
    synthetic = list(generate(settings.synthetic_reviews, seed=recipe.seed))
    real = [] if reviews is None else _training_texts(reviews)
    texts = [*real, *(row.review.text for row in synthetic)]
    if not texts:
        raise SettingsError(
            "pretraining.synthetic_reviews=0 and no reviews were given: there is no text to learn "
            "a tokenizer from; raise synthetic_reviews, pass a split, or name encoder.pretrained"
        )
    corpus = canonical_digest(texts)
    work = checkpoints / f"pretrain-{canonical_digest([recipe.digest, corpus])[:16]}"
    work.mkdir(parents=True, exist_ok=True)
    print(f"corpus: {len(real)} real and {len(synthetic)} synthetic texts", flush=True)
    tokenizer = train_tokenizer(texts, vocabulary=recipe.encoder.vocabulary)
    print(f"tokenizer: {tokenizer.get_vocab_size()} subwords", flush=True)
    set_seed(recipe.seed)
    encoder = new_encoder(recipe, tokenizer)
    vocabulary = tokenizer.get_vocab_size()
    _start_vectors(encoder, segment(tokenizer, texts))
    model = PretrainableElectra(encoder, torch.full((vocabulary,), 1.0 / vocabulary))
    curves = {}
    if settings.masked_epochs:
        with without_dropout(encoder):
            curves["masked tokens"] = _masked_stage(model, tokenizer, texts, recipe, work)
    if settings.synthetic_epochs:
        curves["synthetic labels"] = _synthetic_stage(model, tokenizer, synthetic, recipe, work)
    save_encoder(encoder, out)
    tokenizer.save(str(out / "tokenizer.json"))
    manifest = write_manifest(
        out,
        ENCODER_KIND,
        {
            "pretrained": None,
            "corpus_digest": corpus,
            "texts": {"real": len(real), "synthetic": len(synthetic)},
            "parameters": sum(p.numel() for p in encoder.parameters()),
            "curves": curves,
        },
    )
    shutil.rmtree(work)
    return manifest


def _start_vectors(encoder: MultiTaskElectra, rows: Sequence[Sequence[int]]) -> None:
    weight = encoder.electra.embeddings.word_embeddings.weight
    size = min(weight.shape[1], weight.shape[0] - 1)
    vectors = torch.from_numpy(
        word_vectors(rows, weight.shape[0], size=size, first_ordinary=len(SPECIAL_TOKENS))
    )
    known = vectors.abs().sum(1) > 0
    with torch.no_grad():
        weight[known, :size] = vectors[known]


def _training_texts(split: Path) -> list[str]:
    return [row.review.text for row in read_labelled_reviews(split / "train.jsonl")]


def start_from(encoder: Path, recipe: Recipe) -> tuple[MultiTaskElectra, Tokenizer]:
    """The model and tokenizer that fine-tuning starts from.

    Raises:
        ArtifactError: the encoder reads fewer positions than the recipe's windows have tokens.
    """
    model = load_encoder(encoder)
    if model.config.max_position_embeddings < recipe.windows.max_tokens:
        raise ArtifactError(
            f"windows.max_tokens={recipe.windows.max_tokens} is more than the "
            f"{model.config.max_position_embeddings} positions of the encoder; lower it"
        )
    model.dropout.p = recipe.fine_tuning.head_dropout
    return model, Tokenizer.from_file(str(encoder / "tokenizer.json"))
