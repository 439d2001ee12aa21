"""A recipe: everything that decides what a training run makes, from one YAML file.

A YAML file becomes a frozen ``Recipe`` once, at the edge. Unknown keys and wrong values fail, all
of them at once, each with its key.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.manifest import canonical_digest
from data.settings import parse_settings
from training.recipe_files import recipe_text

Share = float


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderSettings(_Settings):
    """Which encoder: a pretrained one by hub name or folder, or one made on the spot."""

    pretrained: str | None = Field(
        default=None, description="Hub name or folder; none makes an encoder from the sizes below."
    )
    vocabulary: int = Field(default=8000, ge=500)
    embedding_size: int = Field(default=128, ge=16)
    hidden_size: int = Field(default=192, ge=32)
    layers: int = Field(default=3, ge=1)
    attention_heads: int = Field(default=4, ge=1)
    intermediate_size: int = Field(default=512, ge=32)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"attention_heads={self.attention_heads}"
            )
        return self


class WindowSettings(_Settings):
    """How long texts are read; see serving/windows.py."""

    max_tokens: int = Field(default=128, ge=8, le=512)
    overlap_tokens: int = Field(default=32, ge=0)

    @model_validator(mode="after")
    def _windows_move_on(self) -> Self:
        if self.overlap_tokens > self.max_tokens - 3:
            raise ValueError(
                f"overlap_tokens={self.overlap_tokens} leaves no step in "
                f"max_tokens={self.max_tokens}"
            )
        return self


class PretrainingSettings(_Settings):
    """Domain pretraining: masked tokens of unlabelled text, then labels of synthetic reviews."""

    synthetic_reviews: int = Field(default=0, ge=0, le=5_000_000)
    masked_epochs: float = Field(default=0, ge=0)
    masked_share: Share = Field(default=0.2, gt=0, lt=1)
    masked_learning_rate: float = Field(default=1e-3, gt=0)
    synthetic_epochs: float = Field(default=0, ge=0)
    synthetic_learning_rate: float = Field(default=5e-4, gt=0)
    batch_tokens: int = Field(default=4096, ge=64)


class FineTuningSettings(_Settings):
    """Fine-tuning on the snapshot's training part."""

    epochs: float = Field(default=3, gt=0)
    batch_tokens: int = Field(default=2048, ge=64)
    learning_rate: float = Field(default=3e-4, gt=0)
    embedding_learning_rate_factor: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_share: Share = Field(default=0.1, ge=0, lt=1)
    head_dropout: float = Field(default=0.1, ge=0, lt=1)
    masked_share: Share = Field(
        default=0.1, ge=0, lt=1, description="Tokens hidden at random in training, a regulariser."
    )
    masked_weight: float = Field(
        default=0.0, ge=0, description="Weight of guessing the hidden tokens, beside the tasks."
    )
    segmentation_dropout: Share = Field(
        default=0.0, ge=0, lt=1, description="Byte-pair merges skipped at random in training."
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weight_power: float = Field(
        default=0.5, ge=0, le=1, description="0 weighs all reviews alike, 1 all classes alike."
    )
    loss_weights: dict[
        Literal["sentiment", "intensity", "emotions", "aspects"], Annotated[float, Field(ge=0)]
    ] = Field(
        default={"sentiment": 1.0, "intensity": 0.5, "emotions": 0.5, "aspects": 0.5}, min_length=1
    )
    average_weights_decay: float = Field(
        default=0.0, ge=0, lt=1, description="Exponential moving average of weights; 0 is off."
    )
    save_every_steps: int = Field(default=200, ge=1)


class Recipe(_Settings):
    """One training run."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_-]+$")
    seed: int = 20261101
    threads: int = Field(default=2, ge=1)
    bf16: bool = Field(default=False, description="Matrix products of training in bfloat16.")
    encoder: EncoderSettings = EncoderSettings()
    windows: WindowSettings = WindowSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    fine_tuning: FineTuningSettings = FineTuningSettings()

    @property
    def digest(self) -> str:
        """Changes whenever a setting does."""
        return canonical_digest(self.model_dump())


def parse_recipe(text: str, *, where: str = "the recipe") -> Recipe:
    """A recipe from YAML text; so it travels as a pipeline's parameter.

    Raises:
        SettingsError: it is not YAML, or names every wrong key at once.
    """
    return parse_settings(Recipe, text, where=where)


def read_recipe(name_or_path: str) -> str:
    """The YAML text of a recipe in training/recipes by name, or of any by path; checked.

    Raises:
        SettingsError: there is no such recipe, or it has wrong keys or values.
    """
    return recipe_text(name_or_path, parse_recipe)
