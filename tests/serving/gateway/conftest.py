"""A gateway of language models in this process, what it is asked, and a stand-in for vLLM."""

import functools
import runpy
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from data.errors import EngineMemoryError
from data.manifest import read_manifest, write_manifest
from data.privacy import mask_text
from serving.analyzer import Analyzer, load_analyzer
from serving.embedder import Embedder
from serving.embedding_deployment import EmbeddingDeployment
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, write_embedding_spec
from serving.engines.choice import load_embedder
from serving.gateway.app import create_app
from serving.gateway.settings import ServingSettings, read_settings

FAKES = Path(__file__).parents[2] / "fake_language.py"
IN_PROCESS = {"kind": "in_process", "folder": "/models/base"}
EMBEDDING_WORDS = ["맛", "##있", "##어요", "별", "##로", "친절", "국물", "존맛", "대기", "!", "."]
StartEmbedding = Callable[..., AbstractContextManager[httpx.Client]]
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


class FaultyEngine:
    """A real engine that can be told to fail: what it does is ``fault``."""

    def __init__(self, engine: Any):
        self.inside, self.fault, self.calls = engine, "", 0
        self.gate = threading.Event()
        self.gate.set()
        self.name, self.batch_invariant = "faulty", engine.batch_invariant
        self.computes_padding = engine.computes_padding
        self.length_buckets = engine.length_buckets
        self.max_rows = engine.max_rows

    def run(self, input_ids: Any, attention_mask: Any) -> Any:
        self.calls += 1
        self.gate.wait(30)
        if self.fault == "exit":
            self.fault = ""
            raise SystemExit("a thread dies")
        if self.fault == "memory" and len(input_ids) > 1:
            raise EngineMemoryError("no room; a smaller batch may do")
        outputs = self.inside.run(input_ids, attention_mask)
        if self.fault == "slow":
            time.sleep(0.05 * len(input_ids))
        if self.fault == "nan":
            outputs = {name: np.full_like(values, np.nan) for name, values in outputs.items()}
        return outputs


class FaultyTokenizer:
    """A real tokenizer that raises on texts that say so."""

    def __init__(self, tokenizer: Any):
        self.inside = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inside, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        if any("토큰 오류" in text for text in texts):
            raise RuntimeError("the tokenizer broke")
        return self.inside.encode_batch_fast(texts, **options)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        return self.encode_batch_fast(texts, **options)


def write_tiny_embedding(folder: Path, seed: int, **changes: Any) -> Path:
    """A sealed embedding folder with random weights; another seed is another model."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ElectraConfig, ElectraModel

    from serving.sentence_encoder import SentenceEncoder, save_sentence_encoder

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *EMBEDDING_WORDS]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(tokens[:5])
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = ElectraConfig(
        vocab_size=len(tokens),
        embedding_size=16,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    save_sentence_encoder(SentenceEncoder(ElectraModel(config)), folder / "source")
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = {"name": "reviews", "architecture": "electra", "dimensions": 16, "max_tokens": 32}
    write_embedding_spec(folder, EmbeddingSpec(**(spec | {"overlap_tokens": 8} | changes)))
    write_manifest(folder, EMBEDDING_KIND, {"seed": seed})
    return folder


@pytest.fixture(scope="session")
def tiny_embeddings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two embedding models; the second's vectors may be cut short."""
    folder = tmp_path_factory.mktemp("embeddings")
    return [
        write_tiny_embedding(folder / "first", 1),
        write_tiny_embedding(folder / "second", 2, shortens=True),
    ]


@pytest.fixture(scope="session")
def embedding_deployments(tiny_embeddings: list[Path]) -> list[EmbeddingDeployment]:
    """A deployment of each of the two."""
    return [
        EmbeddingDeployment(
            model_name="matjip-embedding",
            version=str(number),
            folder=folder,
            manifest_digest=read_manifest(folder).digest,
            evidence_id=f"evidence-{number}",
            created_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
        for number, folder in enumerate(tiny_embeddings, start=1)
    ]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[FaultyEngine]:
    """The engines of models that are loaded from here on, in their order, each able to fail."""
    engines: list[FaultyEngine] = []

    def load(folder: Path, **options: Any) -> Embedder:
        whole = load_embedder(folder, **options)
        engines.append(FaultyEngine(whole.engine))
        return Embedder(FaultyTokenizer(whole.tokenizer), engines[-1], whole.spec)

    def load_other(folder: Path, **options: Any) -> Analyzer:
        whole = load_analyzer(folder, **options)
        engines.append(FaultyEngine(whole.engine))
        tokenizer = FaultyTokenizer(whole.tokenizer)
        return Analyzer(tokenizer, engines[-1], whole.spec, whole.manifest)

    monkeypatch.setattr("serving.gateway.embedding_arm.load_embedder", load)
    monkeypatch.setattr("serving.gateway.arms.load_analyzer", load_other)
    return engines


@pytest.fixture
def start_embedding(
    fakes: Any, tmp_path: Path, embedding_deployments: list[EmbeddingDeployment]
) -> StartEmbedding:
    """Serves the first embedding model in this process, or what ``create_app`` is told of."""

    @contextmanager
    def start(*, serve: dict[str, Any] | None = None, **settings: Any) -> Iterator[httpx.Client]:
        settings["store_url"] = f"sqlite:///{tmp_path / 'store.db'}"
        app = create_app(
            read_settings({f"MATJIP_{name.upper()}": str(each) for name, each in settings.items()}),
            mask=lambda text: mask_text(text)[0],
            **(serve or {"embedding": embedding_deployments[0]}),
        )
        limits = httpx.Limits(max_connections=None)
        with (
            fakes.serve(app) as url,
            httpx.Client(base_url=url, timeout=60, limits=limits) as client,
        ):
            yield client

    return start


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
