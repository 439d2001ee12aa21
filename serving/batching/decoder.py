"""Gathers windows' outputs to texts, and decodes in a thread those that have all of theirs."""

import asyncio
from collections.abc import Sequence
from typing import Generic

import numpy as np

from data.errors import EngineError
from serving.batching.health import Health
from serving.batching.requests import Answer, Row, Text, own_error
from serving.batching.threads import Thread
from serving.engines.protocol import Outputs
from serving.text_model import TextModel
from serving.windows import Windows


class Decoder(Generic[Answer]):
    """Outputs to answers. Lives in one event loop; only ``answers`` runs elsewhere."""

    def __init__(self, model: TextModel[Answer], *, name: str, health: Health):
        """Wrap a model's ``answers``."""
        self._model = model
        self._thread = Thread(f"answer-{name}")
        self._health = health
        self._tasks: set[asyncio.Task[None]] = set()

    def deliver(self, rows: list[Row[Answer]], outputs: Outputs) -> None:
        """Keep the outputs of windows; a long text waits for all of its own.

        Args:
            rows: that were answered.
            outputs: a row for each, in their order.
        """
        if all(row.dropped for row in rows):
            return
        if all(len(row.text.outputs) == 1 for row in rows):  # short texts need no gathering
            self._start([row.text for row in rows], outputs)
            return
        ready: list[Text[Answer]] = []
        for place, row in enumerate(rows):
            text = row.text
            if row.dropped or text.outputs[row.window] is not None:
                continue
            text.outputs[row.window] = {name: each[place] for name, each in outputs.items()}
            text.left -= 1
            if text.left == 0:
                ready.append(text)
        if ready:
            self._start(ready, _gathered(ready))

    async def stop(self) -> None:
        """Decode what was delivered, then let the thread end."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.stop()

    def _start(self, texts: list[Text[Answer]], outputs: Outputs) -> None:
        task = asyncio.get_running_loop().create_task(self._decode(texts, outputs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decode(self, texts: list[Text[Answer]], outputs: Outputs) -> None:
        try:
            answers = await self._thread.call(
                checked_answers, self._model, outputs, _windows_of(texts)
            )
        except Exception as error:  # noqa: BLE001 - a model's decoding may raise anything
            if len(texts) == 1:
                self._health.failed(error)
                texts[0].fail(own_error("decoder", error))
                return
            middle = len(texts) // 2
            windows = sum(len(text.outputs) for text in texts[:middle])
            for half, part in (
                (texts[:middle], slice(windows)),
                (texts[middle:], slice(windows, None)),
            ):
                await self._decode(half, {name: each[part] for name, each in outputs.items()})
            return
        self._health.succeeded()
        for text, answer in zip(texts, answers, strict=True):
            text.request.settle(text.index, answer)


def checked_answers(
    model: TextModel[Answer], outputs: Outputs, windows: Windows
) -> Sequence[Answer]:
    """A model's answers, one for each text.

    Raises:
        EngineError: there are more or fewer, or a value is not finite.
    """
    answers = model.answers(outputs, windows)
    if len(answers) != windows.texts:
        raise EngineError(
            f"the model gave {len(answers)!r} answers for {windows.texts!r} texts; mend `answers`"
        )
    return answers


def _gathered(texts: list[Text[Answer]]) -> Outputs:
    parts = [part for text in texts for part in text.outputs if part is not None]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _windows_of(texts: list[Text[Answer]]) -> Windows:
    counts = [len(text.outputs) for text in texts]
    return Windows(
        ids=[[]] * sum(counts),
        text_index=np.repeat(np.arange(len(texts), dtype=np.int64), counts),
        weights=np.concatenate([text.weights for text in texts]),
        texts=len(texts),
    )
