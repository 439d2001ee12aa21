"""Where a request's time goes, for the ``Server-Timing`` header and the metrics."""

import time


class Stages:
    """One request's stages, each from the end of the one before."""

    def __init__(self) -> None:
        """Start the clock."""
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def done(self, name: str, *, apart: tuple[str, float] | None = None) -> None:
        """A stage ends here.

        Args:
            name: of the stage.
            apart: a stage within it that is counted by itself, and its seconds.
        """
        now = time.perf_counter()
        took = now - self._last
        self._last = now
        self.seconds[name] = took
        if apart is not None:
            within, seconds = apart
            self.seconds[within] = min(seconds, took)
            self.seconds[name] -= self.seconds[within]

    def header(self) -> str:
        """The value of ``Server-Timing``, in milliseconds."""
        return ", ".join(f"{name};dur={took * 1000:.3f}" for name, took in self.seconds.items())
