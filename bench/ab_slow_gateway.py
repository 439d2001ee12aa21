"""The gateway's command with a challenger that is slow once it is told to be.

    python -m bench.ab_slow_gateway SLOW_FILE [options of serving.gateway.app]

It is slow while SLOW_FILE is there. Of the models of a deployment the second is the challenger's.
"""

import sys
import time
from pathlib import Path
from typing import Any, Final

import typer

from serving.analyzer import Analyzer, load_analyzer
from serving.engines.protocol import Outputs, TokenIds
from serving.gateway import app, arms

SLOW_S: Final = 0.25


class SlowEngine:
    """A real engine that rests before each batch while a file is there."""

    def __init__(self, engine: Any, told: Path):
        """Wrap an engine."""
        self._engine = engine
        self._told = told

    def __getattr__(self, name: str) -> Any:
        """Whatever else the engine has."""
        return getattr(self._engine, name)

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        if self._told.exists():
            time.sleep(SLOW_S)
        answered: Outputs = self._engine.run(input_ids, attention_mask)
        return answered


def main() -> None:
    """Serve until told to stop."""
    told, loaded = Path(sys.argv.pop(1)), 0

    def load(folder: Path, **options: Any) -> Analyzer:
        nonlocal loaded
        loaded += 1
        whole = load_analyzer(folder, **options)
        if loaded != 2:  # noqa: PLR2004  # the challenger
            return whole
        engine: Any = SlowEngine(whole.engine, told)
        return Analyzer(whole.tokenizer, engine, whole.spec, whole.manifest)

    arms.load_analyzer = load
    typer.run(app.main)


if __name__ == "__main__":
    main()
