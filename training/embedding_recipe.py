"""A recipe of an embedding model: what decides how it is made, from one YAML file.

Either a published model is taken as it is (``pretrained``), or a small one is made on the spot: a
tokenizer and an encoder (training/pretraining.py), then contrastive training on pairs of texts.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data.manifest import canonical_digest
from data.settings import parse_settings
from serving.embedding_folder import Pooling
from training.recipe import EncoderSettings, PretrainingSettings, Recipe, Share, WindowSettings
from training.recipe_files import recipe_text

QuantizedFormat = Literal["int8", "qdq"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ContrastiveSettings(_Settings):
    """Which texts belong together, and how that is learnt; see training/embedding_pairs.py."""

    synthetic_reviews: int = Field(default=6000, ge=0, le=1_000_000)
    clause_share: Share = Field(
        default=0.4, ge=0, le=1, description="Of the pairs: a clause and the review it stands in."
    )
    word_dropout: Share = Field(
        default=0.1, ge=0, lt=1, description="Words left out of one of the two, at random."
    )
    pairs_file: str | None = Field(
        default=None,
        description="Tab-separated sentence pairs with a score from 0 to 5, such as "
        "korsts_train.tsv.gz; those of 4 and more join the pairs.",
    )
    epochs: float = Field(default=1, gt=0)
    batch_pairs: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup_share: Share = Field(default=0.1, ge=0, lt=1)
    temperature: float = Field(default=0.05, gt=0)


class EmbeddingRecipe(_Settings):
    """One embedding model."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_-]+$")
    seed: int = 20261101
    threads: int = Field(default=2, ge=1)
    pretrained: str | None = Field(
        default=None,
        description="A sentence-transformers model by hub name or folder, taken as it is; none "
        "makes one from the settings below.",
    )
    prompt: str | None = Field(
        default=None, description="Name of the published model's prompt; none takes its default."
    )
    max_tokens: int | None = Field(
        default=None, ge=8, description="Shorter windows than the published model reads."
    )
    pooling: Pooling = Field(default="mean", description="Of a model made on the spot.")
    encoder: EncoderSettings = EncoderSettings()
    windows: WindowSettings = WindowSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    demanded: tuple[QuantizedFormat, ...] = Field(
        default=(),
        description="Quantised formats without which the run fails; others are left out, with the "
        "reason, where they lose too much.",
    )

    @property
    def digest(self) -> str:
        """Changes whenever a setting does."""
        return canonical_digest(self.model_dump())

    def encoder_recipe(self) -> Recipe:
        """What contrastive training starts from, as training/pretraining.py reads it."""
        return Recipe(
            name=self.name,
            seed=self.seed,
            threads=self.threads,
            encoder=self.encoder,
            windows=self.windows,
            pretraining=self.pretraining,
        )


def parse_embedding_recipe(text: str, *, where: str = "the recipe") -> EmbeddingRecipe:
    """A recipe from YAML text; so it travels as a pipeline's parameter.

    Raises:
        SettingsError: it is not YAML, or names every wrong key at once.
    """
    return parse_settings(EmbeddingRecipe, text, where=where)


def embedding_recipe_text(name_or_path: str) -> str:
    """The YAML text of a recipe in training/recipes by name, or of any by path; checked.

    Raises:
        SettingsError: there is no such recipe, or it has wrong keys or values.
    """
    return recipe_text(name_or_path, parse_embedding_recipe)
