"""A gateway of language models in this process, and the server that stands in for vLLM."""

import functools
import runpy
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from data.privacy import mask_text
from serving.gateway.app import create_app
from serving.gateway.settings import ServingSettings

FAKES = Path(__file__).parents[2] / "fake_language.py"
IN_PROCESS = {"kind": "in_process", "folder": "/models/base"}
StartLanguage = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="session")
def fakes() -> Any:
    """What tests/fake_language.py holds."""
    return SimpleNamespace(**runpy.run_path(str(FAKES)))


@pytest.fixture
def engine(fakes: Any) -> Any:
    """The engine of every arm in this process."""
    return fakes.FakeEngine()


@contextmanager
def _vllm(fakes: Any) -> Iterator[Any]:
    server = fakes.FakeServer()
    with fakes.serve(server.app) as url:
        server.endpoint = {"kind": "openai", "base_url": f"{url}/v1", "model": "served"}
        yield server


@contextmanager
def _start(
    fakes: Any, engine: Any, folder: Path, *endpoints: dict[str, Any], **settings: Any
) -> Iterator[httpx.Client]:
    app = create_app(
        ServingSettings(store_url=f"sqlite:///{folder / 'store.db'}", **settings),
        language=fakes.language_deployment(*(endpoints or [IN_PROCESS])),
        mask=lambda text: mask_text(text)[0],
        load=lambda _arm, _settings: engine,
    )
    with fakes.serve(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
def vllm(fakes: Any) -> Iterator[Any]:
    """A server that speaks OpenAI's API, on loopback; ``endpoint`` is how a deployment names it."""
    with _vllm(fakes) as server:
        yield server


@pytest.fixture
def start_language(fakes: Any, engine: Any, tmp_path: Path) -> StartLanguage:
    """Serves a language deployment of these endpoints, in process if none is named."""
    return functools.partial(_start, fakes, engine, tmp_path)


@pytest.fixture(scope="module")
def refusing(fakes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One gateway for all requests that reach nobody: (client, the server, the engine)."""
    engine, folder = fakes.FakeEngine(), tmp_path_factory.mktemp("refusing")
    with _vllm(fakes) as server, _start(fakes, engine, folder, server.endpoint) as client:
        yield client, server, engine


@pytest.fixture
def exposures(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """What the store of this test holds, oldest first."""

    def read() -> list[dict[str, Any]]:
        store = sqlite3.connect(tmp_path / "store.db")
        store.row_factory = sqlite3.Row
        rows = store.execute("SELECT * FROM exposures ORDER BY created_at_us")
        found = [dict(row) for row in rows]
        store.close()
        return found

    return read
