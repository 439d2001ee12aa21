"""Tokenises requests in a thread, a few texts at a time, so that others have their turn between."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Generic

from serving.batching.health import Health
from serving.batching.requests import Answer, Request, Row, own_error, rows_of
from serving.batching.settings import BatchSettings
from serving.batching.threads import Thread
from serving.windows import Windows

_FIRST_GUESS: Final = 0.5
_FOLLOW: Final = 0.05
_MOST: Final = 4.0


class Reader(Generic[Answer]):
    """Texts to windows that wait. Lives in one event loop; only ``windows`` runs elsewhere."""

    def __init__(
        self,
        windows: Callable[[Sequence[str]], Windows],
        *,
        name: str,
        settings: BatchSettings,
        health: Health,
        ready: Callable[[list[Row[Answer]]], None],
    ):
        """Wrap a model's ``windows``; ``ready`` takes what was read."""
        self._windows = windows
        self._thread = Thread(f"read-{name}")
        self._settings = settings
        self._health = health
        self._ready = ready
        self._unread_chars = 0
        self._tokens_per_char = _FIRST_GUESS

    def tokens(self, texts: Sequence[str]) -> float:
        """How many tokens texts are likely to have."""
        return sum(map(len, texts)) * self._tokens_per_char

    @property
    def unread_tokens(self) -> float:
        """Likely tokens of what is to be read."""
        return self._unread_chars * self._tokens_per_char

    async def read(self, request: Request[Answer]) -> None:
        """Read a request; a text that the tokenizer refuses is answered with its error."""
        left = sum(map(len, request.texts))
        self._unread_chars += left
        try:
            for first, texts in _chunks(request.texts, self._settings):
                await self._read_some(request, first, texts)
                if request.done.done():
                    return
                read = sum(map(len, texts))
                self._unread_chars -= read
                left -= read
        finally:
            self._unread_chars -= left

    def stop(self) -> None:
        """Let the thread end after what it does."""
        self._thread.stop()

    async def _read_some(self, request: Request[Answer], first: int, texts: list[str]) -> None:
        try:
            windows = await self._thread.call(self._windows, texts)
            rows = rows_of(request, first, windows, time.monotonic())
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything
            if len(texts) > 1:
                middle = len(texts) // 2
                await self._read_some(request, first, texts[:middle])
                await self._read_some(request, first + middle, texts[middle:])
                return
            self._health.failed(error)
            request.settle(first, own_error("tokenizer", error))
            return
        tokens = sum(len(row.ids) for row in rows)
        ratio = min(tokens / max(sum(map(len, texts)), 1), _MOST)
        self._tokens_per_char += _FOLLOW * (ratio - self._tokens_per_char)
        self._ready(rows)


def _chunks(texts: list[str], settings: BatchSettings) -> Iterator[tuple[int, list[str]]]:
    first, chars = 0, 0
    for place, text in enumerate(texts):
        full = place - first >= settings.tokenize_texts
        if place > first and (full or chars + len(text) > settings.tokenize_chars):
            yield first, texts[first:place]
            first, chars = place, 0
        chars += len(text)
    yield first, texts[first:]
