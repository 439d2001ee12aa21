"""The folder of one classifier, the same for training, registry and serving.

model_spec.json   how to read texts and outputs (this module)
tokenizer.json    the tokenizer, as the `tokenizers` library writes it
model.onnx        onnx formats: the graph that ONNX Runtime serves
tensorrt.onnx     onnx fp32 only: the dynamo export that TensorRT and OpenVINO take
qdq.onnx          onnx int8, where a scheme keeps the answers: tensorrt.onnx with explicit Q/DQ
config.json, model.safetensors   torch format: architecture and weights
manifest.json     sizes and hashes of all of it (data/manifest.py)
"""

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.contract import (
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    SENTIMENTS,
    Aspect,
    Emotion,
    Intensity,
    Sentiment,
)
from data.errors import ArtifactError
from data.manifest import write_text_atomically

SPEC_NAME: Final = "model_spec.json"
MODEL_KIND: Final = "sentiment_model"
ModelFormat = Literal["torch-fp32", "onnx-fp32", "onnx-int8"]


class Temperatures(BaseModel):
    """Divisors of each head's logits, fitted on validation data; 1 is uncalibrated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sentiment: float = Field(default=1.0, gt=0)
    intensity: float = Field(default=1.0, gt=0)
    emotions: float = Field(default=1.0, gt=0)
    aspects: float = Field(default=1.0, gt=0)


class ModelSpec(BaseModel):
    """How a classifier reads texts, and how its outputs are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    contract_version: str
    format: ModelFormat
    architecture: str
    max_tokens: int = Field(ge=8, description="Tokens of one window, [CLS] and [SEP] included.")
    overlap_tokens: int = Field(ge=0, description="Tokens that two windows of a long text share.")
    id2sentiment: dict[int, Sentiment] = dict(enumerate(SENTIMENTS))
    id2intensity: dict[int, Intensity] = dict(enumerate(INTENSITIES))
    temperatures: Temperatures = Temperatures()
    emotion_thresholds: dict[Emotion, float] = dict.fromkeys(EMOTIONS, 0.5)
    mention_thresholds: dict[Aspect, float] = dict.fromkeys(ASPECTS, 0.5)

    @model_validator(mode="after")
    def _every_output_has_one_name(self) -> Self:
        for field, names in (("id2sentiment", SENTIMENTS), ("id2intensity", INTENSITIES)):
            given = getattr(self, field)
            if sorted(given) != list(range(len(names))) or set(given.values()) != set(names):
                raise ValueError(f"{field}={given!r} does not give each of {names!r} one output")
        if missing := [emotion for emotion in EMOTIONS if emotion not in self.emotion_thresholds]:
            raise ValueError(f"emotion_thresholds lacks {missing!r}")
        if lacking := [aspect for aspect in ASPECTS if aspect not in self.mention_thresholds]:
            raise ValueError(f"mention_thresholds lacks {lacking!r}")
        return self


def read_spec(folder: Path) -> ModelSpec:
    """Read a model folder's spec.

    Raises:
        ArtifactError: there is none, or it is not one.
    """
    path = folder / SPEC_NAME
    try:
        return ModelSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(path)!r} is not a model spec: {error}; export the model again"
        ) from error


def write_spec(folder: Path, spec: ModelSpec) -> None:
    """Write a model folder's spec."""
    write_text_atomically(folder / SPEC_NAME, spec.model_dump_json(indent=2) + "\n")
