"""The raw outputs of a classifier's four heads, one row per window or text."""

from dataclasses import dataclass, fields

import numpy as np

from serving.engines.protocol import Floats, Outputs


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

    def named(self) -> Outputs:
        """The same by name, as an engine answers."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def flat(self) -> Floats:
        """All logits side by side, (n, 33), for comparing two engines."""
        return np.concatenate(
            [self.sentiment, self.intensity, self.emotions, self.aspects.reshape(len(self), -1)],
            axis=1,
        )


LOGITS = tuple(field.name for field in fields(Logits))
"""Names of the outputs that a classifier's engine answers with, in order."""
