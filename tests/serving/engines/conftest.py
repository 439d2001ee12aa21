"""Small language models: a random Qwen3 and what is made of it."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MAKER = Path(__file__).parents[2] / "tiny_language_model.py"


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The makers of tests/tiny_language_model.py."""
    return SimpleNamespace(**runpy.run_path(str(MAKER)))


@pytest.fixture(scope="session")
def tiny_base(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3, float32, with a context of 1,024 tokens."""
    folder = tmp_path_factory.mktemp("language") / "base"
    tiny.write_model(folder)
    return folder
