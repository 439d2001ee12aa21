"""The live view of a run: one row per step, what it does now, how long it took."""

import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

OTHER_COLUMNS = 50
"""Cells that the other columns take; the rest of the terminal shows a step's last line."""


class StepView:
    """A table that moves on a terminal; plain lines, one per event, anywhere else."""

    def __init__(self, title: str, steps: list[str], out: TextIO):
        """Show ``steps`` in the order in which they begin."""
        self._title = title
        self._waiting = list(steps)
        self._done: list[tuple[str, str, float]] = []
        self._current: tuple[str, float] | None = None
        self._line = ""
        self._console = Console(file=out)
        self._live = (
            Live(get_renderable=self._render, console=self._console, refresh_per_second=4)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def start(self, name: str) -> None:
        """A step begins."""
        self._current, self._line = (name, time.monotonic()), ""

    def line(self, text: str) -> None:
        """The running step printed a line."""
        self._line = text

    def end(self, name: str, seconds: float, *, ok: bool, cached: bool) -> None:
        """A step ended."""
        state = "cached" if cached else "done" if ok else "FAILED"
        self._done.append((name, state, seconds))
        self._current = None
        if name in self._waiting:
            self._waiting.remove(name)
        if not self._live:
            self._console.print(f"  {name:<22} {state:<7} {seconds:7.1f} s", highlight=False)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 2))
        colours = {"done": "green", "cached": "cyan", "FAILED": "bold red"}
        for name, state, seconds in self._done:
            table.add_row("●", name, Text(state, colours[state]), f"{seconds:.1f} s", "")
        if self._current:
            name, since = self._current
            took = f"{time.monotonic() - since:.1f} s"
            line = Text(self._line, "dim")
            line.truncate(max(self._console.width - OTHER_COLUMNS, 8), overflow="ellipsis")
            table.add_row("▶", name, Text("running", "yellow"), took, line)
        for name in self._waiting:
            if not self._current or name != self._current[0]:
                table.add_row("○", Text(name, "dim"), "", "", "")
        return Group(Text(self._title, "bold"), table)
