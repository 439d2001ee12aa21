"""What every engine is: padded token ids in, the four heads' logits out, one row per window."""

from dataclasses import dataclass, fields
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TokenIds = NDArray[np.int64]


@dataclass(frozen=True)
class Logits:
    """Raw outputs of the heads for ``n`` rows.

    Attributes:
        sentiment: (n, 3), softmax over ``contract.SENTIMENTS``.
        intensity: (n, 4), cumulative: sigmoid of column k is P(intensity > k - 2); never rising.
        emotions: (n, 8), a sigmoid each over ``contract.EMOTIONS``.
        aspects: (n, 6, 3), per aspect: mentioned, and given that, positive and negative; sigmoids.
    """

    sentiment: Floats
    intensity: Floats
    emotions: Floats
    aspects: Floats

    def __len__(self) -> int:
        return len(self.sentiment)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """The given rows, in the given order."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def flat(self) -> Floats:
        """All logits side by side, (n, 33), for comparing two engines."""
        return np.concatenate(
            [self.sentiment, self.intensity, self.emotions, self.aspects.reshape(len(self), -1)],
            axis=1,
        )

    @classmethod
    def concatenate(cls, parts: "list[Logits]") -> Self:
        """Rows of several batches below one another."""
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )


class Engine(Protocol):
    """Runs one model. Safe to call from several threads at once."""

    name: str

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Logits:
        """Answer one padded batch of windows.

        Args:
            input_ids: (batch, tokens), padded on the right.
            attention_mask: (batch, tokens), 1 for a real token and 0 for padding.
        """
        ...
