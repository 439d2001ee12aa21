"""A gateway of language models in this process, what it is asked, and a stand-in for vLLM."""

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
    fakes: Any,
    engine: Any,
    folder: Path,
    *endpoints: dict[str, Any],
    answer_tokens: tuple[int, int] = (1_024, 1_024),
    **settings: Any,
) -> Iterator[httpx.Client]:
    app = create_app(
        ServingSettings(store_url=f"sqlite:///{folder / 'store.db'}", **settings),
        language=fakes.language_deployment(
            *(endpoints or [IN_PROCESS]), answer_tokens=answer_tokens
        ),
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


@pytest.fixture(scope="session")
def turn() -> dict[str, str]:
    """What a caller says in a chat."""
    return {"role": "user", "content": "국물이 진하다는 후기의 감성은?"}


@pytest.fixture(scope="session")
def chat(turn: dict[str, str]) -> Callable[..., httpx.Response]:
    """Asks OpenAI's chats with one turn; what is named is added."""

    def ask(client: httpx.Client, headers: Any = None, **more: Any) -> httpx.Response:
        body = {"messages": [turn]} | more
        return client.post("/v1/chat/completions", json=body, headers=headers)

    return ask


@pytest.fixture(scope="session")
def analyze() -> Callable[..., httpx.Response]:
    """Has reviews analysed; what is named is added."""

    def ask(client: httpx.Client, *texts: object, **more: object) -> httpx.Response:
        body = {"reviews": [{"text": text} for text in texts]} | more
        return client.post("/v1/analyze", json=body)

    return ask


@pytest.fixture(scope="session")
def assert_error() -> Callable[..., str]:
    """Asserts that an answer is an error in the one shape of all errors; gives its message."""

    def check(answer: httpx.Response, status: int, code: str, field: str | None = None) -> str:
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert set(body) == {"error"}
        error = body["error"]
        assert error["code"] == code
        assert error.get("field") == field
        assert error["request_id"] == answer.headers["X-Request-Id"]
        return str(error["message"])

    return check
