"""Decoding that cannot leave a JSON Schema: token masks from llguidance, a batch's row at a time.

vLLM's "guidance" backend is the same engine with the same settings (serving/vllm.yaml), so what is
decoded here and what is served there obey the same grammar: compact JSON, keys in their order.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from numpy.typing import NDArray
from transformers import LogitsProcessor, PreTrainedTokenizerFast, StoppingCriteria

from data.errors import EngineError

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

COMPACT: Final["JsonCompileOptions"] = {"whitespace_flexible": False}
_SHOWN: Final = 200


@dataclass
class Row:
    """One answer while it is decoded.

    Attributes:
        matcher: what it may say next; None is anything.
        max_tokens: after which it is cut.
        temperature: 0 takes the likeliest token.
        generator: of the sampling, its own, so that batch-mates change nothing.
        tokens: said so far, the end mark included.
        ended: it said its end mark.
        error: why it failed.
    """

    matcher: LLMatcher | None
    max_tokens: int
    temperature: float = 0.0
    generator: torch.Generator | None = None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    error: str | None = None

    @property
    def done(self) -> bool:
        """It says nothing more."""
        return self.ended or self.error is not None or len(self.tokens) >= self.max_tokens

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Note the token that was chosen."""
        self.tokens.append(token)
        self.ended = token in ends
        if self.matcher is not None and not self.matcher.consume_token(token):
            reason = self.matcher.get_error().splitlines()[0][:_SHOWN]
            self.error = f"the constraint was lost after {len(self.tokens)} tokens: {reason}"


def grammar_tokenizer(
    tokenizer: PreTrainedTokenizerFast, vocabulary: int, ends: Sequence[int]
) -> LLTokenizer:
    """A tokenizer as llguidance reads it; made once a model.

    Args:
        tokenizer: of the model.
        vocabulary: width of the model's logits; rows beyond the tokenizer are never allowed.
        ends: token ids that end an answer.
    """
    return from_tokenizer(
        tokenizer, n_vocab=max(vocabulary, len(tokenizer)), eos_token=sorted(ends)
    )


def compile_schema(tokenizer: LLTokenizer, schema: Mapping[str, Any]) -> LLMatcher:
    """What an answer under a JSON Schema may say, from its first token.

    Raises:
        EngineError: it is no schema, or says what cannot be decoded.
    """
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema, ensure_ascii=False), defaults=COMPACT
        )
    except (TypeError, ValueError) as error:
        raise EngineError(
            f"{str(schema)[:_SHOWN]!r} is not a JSON Schema: {error}; send an object"
        ) from error
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    if matcher.is_error():
        reason = " ".join(matcher.get_error().split())[:_SHOWN]
        raise EngineError(
            f"the JSON Schema {str(schema)[:_SHOWN]!r} cannot constrain decoding: {reason}; "
            "simplify it"
        )
    return matcher


class ConstrainedScores(LogitsProcessor):
    """Leaves each row only the tokens that its grammar allows, and samples where it is asked to.

    Sampling adds Gumbel noise, after which the likeliest token is a sample: rows of different
    temperatures and seeds decode greedily side by side.
    """

    def __init__(self, rows: Sequence[Row]):
        """Watch over the rows of one batch, in order."""
        self._rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores, (batch, vocabulary), with what may not be said at minus infinity."""
        broken = torch.isnan(scores).any(dim=1).tolist()
        allowed = np.ones(scores.shape, dtype=np.bool_)
        for number, row in enumerate(self._rows):
            if broken[number] and not row.done:
                row.error = "the model's scores are not numbers; its weights are broken"
            if row.matcher is not None and not row.done:
                allowed[number] = _allowed(row.matcher, scores.shape[1])
        scores = scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)
        for number, row in enumerate(self._rows):
            if row.temperature > 0 and not row.done:
                scores[number] = _sampled(scores[number], row)
        return scores


class RowsDone(StoppingCriteria):
    """Notes what was chosen, and ends each row at its own end mark, limit or error."""

    def __init__(self, rows: Sequence[Row], ends: frozenset[int], stop: threading.Event):
        """Watch over the rows of one batch, in order; ``stop`` ends them all."""
        self._rows = rows
        self._ends = ends
        self._stop = stop

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor | None, **_rest: object
    ) -> torch.Tensor:
        """Which rows are done, (batch,); ``input_ids`` is (batch, tokens so far)."""
        for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
            if not row.done:
                row.take(token, self._ends)
        stopped = self._stop.is_set()
        return torch.tensor([stopped or row.done for row in self._rows], device=input_ids.device)


def _allowed(matcher: LLMatcher, vocabulary: int) -> NDArray[np.bool_]:
    words = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    return np.unpackbits(words, count=vocabulary, bitorder="little").astype(np.bool_)


def _sampled(scores: torch.Tensor, row: Row) -> torch.Tensor:
    noise = torch.empty(scores.shape[0]).exponential_(generator=row.generator)
    return scores / row.temperature - noise.log().to(scores.device)
