"""A recipe to an embedding model: a published one taken as it is, or one made on the spot.

In: a recipe, and a split whose training texts are learnt from. Out: an embedding folder
(serving/embedding_folder.py) that holds the torch model alone; the exports come after.
"""

import shutil
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, set_seed

from data.errors import DataUnfitError
from data.manifest import (
    Manifest,
    canonical_digest,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_manifest,
)
from data.sources.synthetic import generate
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, write_embedding_spec
from serving.encoder import load_encoder
from serving.sentence_encoder import SentenceEncoder, save_sentence_encoder
from training.adopt_embedding import adopt_embedding
from training.embedding_pairs import Pair, alike_pairs, review_pairs
from training.embedding_recipe import ContrastiveSettings, EmbeddingRecipe
from training.pretraining import pretrain_encoder

_LOGGED: Final = 0.1
"""Share of the steps between two points of the loss curve."""
_BERT_LIKE: Final = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")


def train_embedding(
    recipe: EmbeddingRecipe, split: Path, out: Path, *, checkpoints: Path
) -> Manifest:
    """Make the torch model of an embedding folder.

    Args:
        recipe: what to make.
        split: folder of kind "split"; only the texts of its training part are read.
        out: empty folder.
        checkpoints: keeps the encoder of a run that was cut off.

    Raises:
        SettingsError: the published model cannot be had or is not supported, or there is no text.
        DataUnfitError: there are fewer pairs than a batch takes.
        ArtifactError: the split is missing or altered.
    """
    parent = read_manifest(split, "split")
    torch.set_num_threads(recipe.threads)
    facts: dict[str, Any] = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest,
        "split_digest": parent.digest,
        "snapshot_id": parent.facts.get("snapshot_id"),
        "pretrained": recipe.pretrained,
        "format": "torch-fp32",
    }
    if recipe.pretrained:
        spec = adopt_embedding(
            recipe.pretrained,
            out,
            name=recipe.name,
            prompt=recipe.prompt,
            max_tokens=recipe.max_tokens,
            overlap_tokens=recipe.windows.overlap_tokens,
        )
    else:
        spec, made = _made_on_the_spot(recipe, split, out, checkpoints, parent.digest)
        facts |= made
    return write_manifest(out, EMBEDDING_KIND, facts | {"dimensions": spec.dimensions})


def _made_on_the_spot(
    recipe: EmbeddingRecipe, split: Path, out: Path, checkpoints: Path, split_digest: str
) -> tuple[EmbeddingSpec, dict[str, Any]]:
    pairs, counts = _pairs(recipe, split)
    work = checkpoints / f"embedding-{canonical_digest([recipe.digest, split_digest])[:16]}"
    encoder = work / "encoder"
    if not (encoder / "manifest.json").is_file():
        pretrain_encoder(
            recipe.encoder_recipe(), encoder, reviews=split, checkpoints=work / "pretraining"
        )
    set_seed(recipe.seed)
    model = _sentence_transformer(encoder, work / "start", recipe)
    print(f"{len(pairs)} pairs: {counts}", flush=True)
    curve = _contrast(model, pairs, recipe.contrastive, seed=recipe.seed, work=work)
    start_artifact(out)
    trained = SentenceEncoder(model[0].auto_model.eval(), pooling=recipe.pooling)
    save_sentence_encoder(trained, out / "source")
    shutil.copy2(encoder / "tokenizer.json", out / "tokenizer.json")
    opening, closing, padding = _BERT_LIKE[:3]
    spec = EmbeddingSpec(
        name=recipe.name,
        architecture="electra",
        pooling=recipe.pooling,
        dimensions=recipe.encoder.hidden_size,
        max_tokens=recipe.windows.max_tokens,
        overlap_tokens=recipe.windows.overlap_tokens,
        opening=opening,
        closing=closing,
        padding=padding,
    )
    write_embedding_spec(out, spec)
    shutil.rmtree(work)
    return spec, {"pairs": counts, "curve": curve}


def _pairs(recipe: EmbeddingRecipe, split: Path) -> tuple[list[Pair], dict[str, int]]:
    settings = recipe.contrastive
    real = list(read_labelled_reviews(split / "train.jsonl"))
    made = list(generate(settings.synthetic_reviews, seed=recipe.seed))
    pairs = review_pairs(
        [*real, *made],
        clause_share=settings.clause_share,
        word_dropout=settings.word_dropout,
        seed=recipe.seed,
    )
    scored = alike_pairs(Path(settings.pairs_file)) if settings.pairs_file else []
    counts = {"training part": len(real), "synthetic": len(made), "scored": len(scored)}
    if len(pairs) + len(scored) < settings.batch_pairs:
        raise DataUnfitError(
            f"{len(pairs) + len(scored)} pairs are fewer than contrastive.batch_pairs="
            f"{settings.batch_pairs!r}; lower it, or raise contrastive.synthetic_reviews"
        )
    return [*pairs, *scored], counts


def _sentence_transformer(encoder: Path, folder: Path, recipe: EmbeddingRecipe) -> Any:
    """The encoder as the trainer wants it; it goes through a folder, as its parts are read so."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    electra = load_encoder(encoder).electra
    electra.save_pretrained(folder)
    names = dict(
        zip(
            ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"),
            _BERT_LIKE,
            strict=True,
        )
    )
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(encoder / "tokenizer.json")), **names
    ).save_pretrained(folder)
    return SentenceTransformer(
        modules=[
            Transformer(str(folder), max_seq_length=recipe.windows.max_tokens),
            Pooling(electra.config.hidden_size, recipe.pooling),
            Normalize(),
        ],
        device="cuda" if torch.cuda.is_available() else "cpu",
    )


def _contrast(
    model: Any, pairs: list[Pair], settings: ContrastiveSettings, *, seed: int, work: Path
) -> list[tuple[int, float]]:
    """Train on pairs, the others of a batch as negatives; returns (step, loss)."""
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(work / "training"),
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_pairs,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=settings.warmup_share,  # below 1 a share
            weight_decay=0.01,
            # A text that stands in a batch twice would be its own negative.
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            data_seed=seed,
            save_strategy="no",
            logging_steps=_LOGGED,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_dict(
            {"anchor": [first for first, _ in pairs], "positive": [second for _, second in pairs]}
        ),
        loss=MultipleNegativesRankingLoss(model, scale=1.0 / settings.temperature),
    )
    trainer.train()
    return [
        (int(line["step"]), float(line["loss"]))
        for line in trainer.state.log_history
        if "loss" in line
    ]
