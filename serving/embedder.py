"""Texts in, vectors out: tokenise, window, batch, run, merge, normalise.

The one path that checks measure and the API serves.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data.errors import EngineError
from serving.batching.planner import TOKEN_BUDGET, run_in_batches
from serving.embedding_folder import VECTOR, EmbeddingSpec
from serving.engines.protocol import Engine, Floats, Outputs
from serving.engines.tuned import Chosen
from serving.windows import Windows, merge_outputs, special_token_id, split_into_windows

Vector = NDArray[np.float32]


class Embedder:
    """An embedding model with an engine around it; a ``TextModel``."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        engine: Engine,
        spec: EmbeddingSpec,
        *,
        chosen: Chosen | None = None,
    ):
        """Wrap parts that belong together; ``load_embedder`` does so from a folder."""
        self.tokenizer = tokenizer
        # A diner who types "[SEP]" typed five characters, not the end of a window.
        self.tokenizer.encode_special_tokens = True
        self.pad_id = special_token_id(tokenizer, spec.padding)
        self.engine = engine
        self.spec = spec
        self.chosen = chosen

    def windows(self, texts: Sequence[str]) -> Windows:
        """The windows that the texts are read in."""
        return split_into_windows(
            self.tokenizer,
            [self.spec.prefix + text for text in texts] if self.spec.prefix else texts,
            max_tokens=self.spec.max_tokens,
            overlap_tokens=self.spec.overlap_tokens,
            opening=self.spec.opening,
            closing=self.spec.closing,
        )

    def answers(self, outputs: Outputs, windows: Windows) -> list[Vector]:
        """One vector per text, (dimensions,); see ``TextModel.answers``."""
        return list(self._vectors(outputs, windows))

    def embed(self, texts: Sequence[str], *, token_budget: int = TOKEN_BUDGET) -> Floats:
        """(texts, dimensions), in the texts' order.

        Raises:
            EngineError: the engine failed or answered with values that are not finite.
        """
        if not texts:
            return np.zeros((0, self.spec.dimensions), dtype=np.float32)
        windows = self.windows(texts)
        outputs = run_in_batches(self.engine, windows.ids, self.pad_id, token_budget=token_budget)
        return self._vectors(outputs, windows)

    def _vectors(self, outputs: Outputs, windows: Windows) -> Floats:
        vectors = merge_outputs(outputs, windows)[VECTOR]
        if not np.isfinite(vectors).all():
            raise EngineError(
                "the engine returned NaN or infinite vectors; the model file is damaged or its "
                "precision overflows: serve the fp32 export and quantise again"
            )
        # The mean of several windows' unit vectors is shorter than 1.
        if self.spec.normalize and len(windows.ids) != windows.texts:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors
