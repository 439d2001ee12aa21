"""What every chat engine is: prompts in, answers out, each obeying the JSON Schema it came with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from data.prompts import Message


@dataclass(frozen=True)
class ChatRequest:
    """One prompt.

    Attributes:
        messages: without the answer; the engine renders them with the model's own chat template.
        schema: JSON Schema that decoding is constrained to; None leaves it free.
        max_tokens: of the answer.
        temperature: 0 takes the likeliest token.
        seed: of the sampling, where the temperature is above 0.
    """

    messages: Sequence[Message]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class ChatAnswer:
    """What the model said, or why it said nothing.

    Attributes:
        text: without special tokens; empty where there is an error.
        finish_reason: ``length`` if the answer was cut at ``max_tokens``.
        error: a sentence; None where the model answered.
    """

    text: str
    finish_reason: Literal["stop", "length", "error"]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None


class ChatEngine(Protocol):
    """Answers prompts with one model."""

    name: str

    async def complete(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """Answer every prompt, in order; one that fails carries its error and harms no other."""
        ...
