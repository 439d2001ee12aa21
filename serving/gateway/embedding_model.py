"""The embedding model as the gateway asks it: texts that are tokens already, vectors with timings.

A request is tokenised before it is queued, once: its tokens are counted against the limit, are what
the caller is told in ``usage``, and are what windows are laid over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.embedder import Embedder, Vector
from serving.engines.protocol import Engine, Outputs
from serving.gateway.timed_engine import BATCH_SECONDS, TimedEngine
from serving.windows import Windows, lay_windows, special_token_id


class TokenisedText(str):
    """A text that knows its token ids, so that whoever queues texts can queue it.

    Attributes:
        ids: without special tokens, the model's prefix included.
    """

    __slots__ = ("ids",)
    ids: list[int]

    @classmethod
    def of(cls, text: str, ids: list[int]) -> "TokenisedText":
        """A text and its ids."""
        made = cls(text)
        made.ids = ids
        return made


@dataclass(frozen=True, slots=True)
class Embedded:
    """One text's answer.

    Attributes:
        vector: (dimensions,).
        batches_s: seconds of each batch that it was part of; no two batches take the very same.
    """

    vector: Vector
    batches_s: set[float]


class EmbeddingModel:
    """A ``TextModel`` of ``TokenisedText``; plain texts are tokenised on the way."""

    def __init__(self, embedder: Embedder):
        """Wrap a loaded embedder."""
        spec = embedder.spec
        self.spec = spec
        self.engine: Engine = TimedEngine(embedder.engine)
        self.pad_id = embedder.pad_id
        self.vocabulary: int = embedder.tokenizer.get_vocab_size()
        self._embedder = embedder
        self._opening = special_token_id(embedder.tokenizer, spec.opening)
        self._closing = special_token_id(embedder.tokenizer, spec.closing)
        self._prefix = self._encode([spec.prefix])[0] if spec.prefix else []

    @property
    def frame(self) -> dict[int, str]:
        """The special tokens that stand around a text, by id: no caller's to send."""
        spec = self.spec
        return {
            self._opening: spec.opening,
            self._closing: spec.closing,
            self.pad_id: spec.padding,
        }

    def tokenise(self, texts: Sequence[str]) -> list[TokenisedText]:
        """Texts with their ids; frees the GIL while it runs."""
        prefix = self.spec.prefix
        encoded = self._encode([prefix + text for text in texts] if prefix else texts)
        return [TokenisedText.of(text, ids) for text, ids in zip(texts, encoded, strict=True)]

    def from_ids(self, ids: Sequence[int], text: str) -> TokenisedText:
        """A text that its caller tokenised; the model's prefix goes before it."""
        return TokenisedText.of(text, [*self._prefix, *ids])

    def read(self, several: Sequence[Sequence[int]]) -> list[str]:
        """Token ids back to texts."""
        return list(self._embedder.tokenizer.decode_batch(several, skip_special_tokens=False))

    def windows(self, texts: Sequence[str]) -> Windows:
        """See ``TextModel.windows``."""
        known = [
            text if isinstance(text, TokenisedText) else self.tokenise([text])[0] for text in texts
        ]
        return lay_windows(
            [text.ids for text in known],
            cls=self._opening,
            sep=self._closing,
            max_tokens=self.spec.max_tokens,
            overlap_tokens=self.spec.overlap_tokens,
        )

    def answers(self, outputs: Outputs, windows: Windows) -> list[Embedded]:
        """See ``TextModel.answers``."""
        vectors = self._embedder.answers(outputs, windows)
        answers = [Embedded(vector, set()) for vector in vectors]
        took = outputs[BATCH_SECONDS].tolist()
        for text, seconds in zip(windows.text_index.tolist(), took, strict=True):
            answers[text].batches_s.add(seconds)
        return answers

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._embedder.tokenizer.encode_batch_fast(
            list(texts), add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]
