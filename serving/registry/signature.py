"""What goes into a registered model and what comes out, in the words of MLflow's schemas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Signature:
    """Columns in and out, as MLflow's schema JSON writes them."""

    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]


def _scores(value: str) -> dict[str, Any]:
    return {"type": "map", "values": {"type": value}}


CHAT_SIGNATURE: Final = Signature(
    inputs=(
        {
            "name": "messages",
            "required": True,
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "required": True},
                    "content": {"type": "string", "required": True},
                },
            },
        },
    ),
    outputs=({"name": "content", "type": "string", "required": True},),
)
CLASSIFIER_SIGNATURE: Final = Signature(
    inputs=({"name": "text", "type": "string", "required": True},),
    outputs=(
        {"name": "sentiment", "type": "string", "required": True},
        {"name": "sentiment_probabilities", "required": True, **_scores("double")},
        {"name": "intensity", "type": "long", "required": True},
        {"name": "intensity_expected", "type": "double", "required": True},
        {"name": "emotions", "required": True, **_scores("double")},
        {"name": "aspects", "required": True, **_scores("string")},
    ),
)
EMBEDDING_SIGNATURE: Final = Signature(
    inputs=({"name": "input", "type": "string", "required": True},),
    outputs=(
        {
            "name": "embedding",
            "required": True,
            "type": "array",
            "items": {"type": "double"},
        },
    ),
)
