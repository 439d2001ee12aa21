"""What every served encoder is: texts to windows, an engine, and its outputs to answers."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from serving.engines.protocol import Engine, Outputs
from serving.windows import Windows

Answer_co = TypeVar("Answer_co", covariant=True)


class TextModel(Protocol[Answer_co]):
    """A classifier (serving/analyzer.py) or an embedding model (serving/embedder.py).

    Safe to call from several threads at once. The three parts may run on different threads:
    ``windows`` and ``answers`` hold no GIL where it matters, and the engine none at all.
    """

    engine: Engine
    pad_id: int

    def windows(self, texts: Sequence[str]) -> Windows:
        """The windows that the texts are read in."""

    def answers(self, outputs: Outputs, windows: Windows) -> Sequence[Answer_co]:
        """One answer per text, in the texts' order.

        Args:
            outputs: of the engine, one row per window, in the windows' order.
            windows: as ``windows`` laid them.

        Raises:
            EngineError: a value is not finite.
        """
