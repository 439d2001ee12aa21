"""A language model's recipe: everything that decides what its training makes, from one YAML file.

Comes in: YAML text. Goes out: a frozen ``LanguageRecipe``. Unknown keys and wrong values fail, all
of them at once, each with its key.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.manifest import canonical_digest
from data.prompts import TASKS, Task
from data.settings import parse_settings
from serving.vllm_launch import Capability, check_format
from training.recipe_files import recipe_text


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BaseSettings(_Settings):
    """Which base: a pretrained one by hub name or folder, or a small Qwen3 made on the spot."""

    pretrained: str | None = Field(
        default=None, description="Hub name or folder; none makes a base from the sizes below."
    )
    vocabulary: int = Field(default=8000, ge=1000, le=200_000)
    hidden_size: int = Field(default=192, ge=64)
    layers: int = Field(default=4, ge=1)
    attention_heads: int = Field(default=6, ge=1)
    key_value_heads: int = Field(default=2, ge=1)
    head_size: int = Field(default=32, ge=16)
    intermediate_size: int = Field(default=512, ge=64)
    context_tokens: int = Field(default=1024, ge=256)


class PretrainingSettings(_Settings):
    """What a base made on the spot learns first: synthetic clauses, then labels and summaries."""

    clause_reviews: int = Field(
        default=30_000, ge=100, description="Whose clauses are read one by one, before answers."
    )
    synthetic_reviews: int = Field(default=16_000, ge=100)
    synthetic_restaurants: int = Field(default=400, ge=0)
    epochs: float = Field(default=1, gt=0)
    batch_tokens: int = Field(default=2048, ge=256)
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_steps: int = Field(default=50, ge=0)


class LoraSettings(_Settings):
    """The adapter."""

    rank: int = Field(default=16, ge=1, le=512)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)


class TuningSettings(_Settings):
    """Supervised fine-tuning of the adapter, on the answers alone."""

    tasks: tuple[Task, ...] = Field(
        default=TASKS, min_length=1, description="Whose examples are learnt; the others stay away."
    )
    quantized_base: Literal["nf4", "none"] = "nf4"
    epochs: float = Field(default=3, gt=0)
    batch_examples: int = Field(default=16, ge=1)
    accumulation: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    max_tokens: int = Field(default=1024, ge=64, description="A longer example is quarantined.")
    packing: bool = Field(
        default=False, description="Needs an attention that keeps examples apart."
    )
    gradient_checkpointing: bool = False
    save_every_steps: int = Field(default=50, ge=1)


class QuantizationSettings(_Settings):
    """How the merged model is quantised, and on what it is calibrated."""

    scheme: Literal["w8a8", "fp8", "w4a16"] = "w8a8"
    samples: int = Field(default=256, ge=8)
    target_capability: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]$")] | None = Field(
        default=None,
        description="Compute capability of the GPU that is to serve it, such as '9.0'; a format "
        "that it lacks is refused before anything is trained. None leaves that to the launch.",
    )
    smoothing: float = Field(default=0.8, ge=0, le=1)

    @property
    def capability(self) -> Capability | None:
        """The target's, as two numbers."""
        if self.target_capability is None:
            return None
        major, minor = self.target_capability.split(".")
        return int(major), int(minor)

    def check_target(self) -> None:
        """Refuse a format that the GPU which is to serve it lacks.

        Raises:
            EngineError: it lacks it.
        """
        if self.capability is not None:
            check_format(self.scheme, self.capability)


class LanguageRecipe(_Settings):
    """Everything that decides what a training run makes."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    seed: int = 20261101
    threads: int = Field(default=2, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    base: BaseSettings = BaseSettings()
    pretraining: PretrainingSettings = PretrainingSettings()
    lora: LoraSettings = LoraSettings()
    tuning: TuningSettings = TuningSettings()
    quantization: QuantizationSettings = QuantizationSettings()

    def digest(self) -> str:
        """SHA-256 of what the recipe says."""
        return canonical_digest(self.model_dump(mode="json"))


def parse_language_recipe(text: str, *, where: str = "language recipe") -> LanguageRecipe:
    """A recipe from YAML text.

    Raises:
        SettingsError: names every wrong key at once.
    """
    return parse_settings(LanguageRecipe, text, where=where)


def language_recipe_text(name_or_path: str) -> str:
    """The YAML text of a recipe in training/recipes by name, or of any by path; checked.

    Raises:
        SettingsError: there is no such recipe, or it has wrong keys or values.
    """
    return recipe_text(name_or_path, parse_language_recipe)
