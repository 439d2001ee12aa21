"""Whether a runner can answer: failures in a row raise the question, a probe settles it."""

import time
from typing import Final

SUSPICIOUS: Final = 2
"""Failures with no answer between them, after which the engine is probed."""


class Health:
    """What went wrong lately; used from one thread."""

    def __init__(self) -> None:
        """Start healthy."""
        self.failing = False
        self._failures = 0
        self._error = ""
        self._probed_at = 0.0

    def succeeded(self) -> None:
        """A text was answered, or a probe."""
        self.failing = False
        self._failures = 0

    def failed(self, error: BaseException) -> None:
        """A batch, a tokenizer's call or a probe failed."""
        self._failures += 1
        self._error = f"{type(error).__name__}: {error}"

    def should_probe(self, interval_s: float) -> bool:
        """Whether it is time to find out; says so once an interval."""
        if self._failures < SUSPICIOUS or time.monotonic() - self._probed_at < interval_s:
            return False
        self._probed_at = time.monotonic()
        return True

    def reason(self) -> str | None:
        """Why no text can be answered, if so."""
        if not self.failing:
            return None
        return f"the engine fails on every text, {self._failures} times in a row: {self._error}"
