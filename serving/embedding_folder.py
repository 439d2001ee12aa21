"""The folder of one embedding model, with every format that it was exported to.

embedding_spec.json   how to read texts and what comes out (this module)
tokenizer.json        the tokenizer, as the `tokenizers` library writes it
source/               config.json, model.safetensors, and any dense layers: the torch model
model.onnx            fp32, fused for ONNX Runtime (TorchScript exporter)
int8.onnx             the same with INT8 weights and activations scaled by batch
graph.onnx            fp32 by the dynamo exporter, for OpenVINO
graph_fp16.onnx       the same with fp16 types, for TensorRT
qdq.onnx              graph.onnx with explicit symmetric Q/DQ (training/qdq.py), for OpenVINO and,
                      given fp16 types when an engine is built, for TensorRT
manifest.json         sizes and hashes of all of it (data/manifest.py)

Only ``source/`` is there before the export. Every graph ends with pooling and normalisation.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import ArtifactError
from data.manifest import write_text_atomically

EMBEDDING_KIND: Final = "embedding_model"
SPEC_NAME: Final = "embedding_spec.json"
VECTOR: Final = "embedding"
"""The output's name; it stands here because a server without torch reads it too."""
Pooling = Literal["mean", "cls"]


class EmbeddingSpec(BaseModel):
    """How an embedding model reads texts, and what it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="What callers ask for as `model`.")
    architecture: str = Field(description="transformers' model type, such as electra.")
    pooling: Pooling = "mean"
    normalize: bool = True
    dimensions: int = Field(ge=1)
    shortens: bool = Field(
        default=False, description="Whether its first dimensions alone are a vector, as taught."
    )
    max_tokens: int = Field(ge=8, description="Tokens of one window, special ones included.")
    overlap_tokens: int = Field(ge=0, description="Tokens that two windows of a long text share.")
    prefix: str = Field(default="", description="Put before every text, as the model was taught.")
    opening: str = Field(default="[CLS]", description="The special token a window begins with.")
    closing: str = Field(default="[SEP]", description="The special token a window ends with.")
    padding: str = "[PAD]"


def read_embedding_spec(folder: Path) -> EmbeddingSpec:
    """Read an embedding folder's spec.

    Raises:
        ArtifactError: there is none, or it is not one.
    """
    path = folder / SPEC_NAME
    try:
        return EmbeddingSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(path)!r} is not an embedding model's spec: {error}; make or export it again"
        ) from error


def write_embedding_spec(folder: Path, spec: EmbeddingSpec) -> None:
    """Write an embedding folder's spec."""
    write_text_atomically(folder / SPEC_NAME, spec.model_dump_json(indent=2) + "\n")
