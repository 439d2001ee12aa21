"""An engine in this process over a random Qwen3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.engines.chat_transformers import TransformersChatEngine


@pytest.fixture(scope="module")
def engine(tiny_base: Path) -> Iterator[TransformersChatEngine]:
    loaded = TransformersChatEngine.load(tiny_base, threads=1)
    yield loaded
    loaded.close()
