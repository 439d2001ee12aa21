"""The gateway's command in a process of its own, with models made on the spot; some can fail."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from bench.gateway_process import on_core
from data.manifest import read_manifest, write_manifest
from serving.deployment import Arm, Deployment
from serving.embedding_deployment import EmbeddingDeployment
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, write_embedding_spec

TESTS = Path(__file__).parents[2]
STARTING: Any = SimpleNamespace(**runpy.run_path(str(TESTS / "services" / "starting.py")))
APP = ("-m", "serving.gateway.app")
WORDS = ["맛있어요", "별로", "친절", "국물", "존맛", "대기", "고기", "정말", "!", "."]
MADE = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(frozen=True)
class Site:
    """A gateway process at work."""

    client: httpx.Client
    process: psutil.Process

    @property
    def port(self) -> int:
        return int(self.client.base_url.port or 0)

    def is_ready(self) -> bool:
        return self.client.get("/ready").status_code == 200

    def resident_bytes(self) -> int:
        return int(self.process.memory_info().rss)


StartSite = Callable[..., AbstractContextManager[Site]]


@pytest.fixture
def start_site(tmp_path: Path) -> StartSite:
    """Starts the gateway's command with options, and with settings by name; waits until it answers.

    `program` takes the place of the app's own module, `core` is the one that it stays on.
    """

    @contextmanager
    def start(
        *options: object,
        program: tuple[str, ...] = APP,
        core: int | None = None,
        **settings: object,
    ) -> Iterator[Site]:
        given = {"store_url": f"sqlite:///{tmp_path / 'store.db'}", "port": STARTING.free_port()}
        given |= settings
        environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
        environment |= {f"MATJIP_{name.upper()}": str(value) for name, value in given.items()}
        log = tmp_path / "gateway.log"
        keep = nullcontext() if core is None else on_core(core)
        with log.open("wb") as output, keep:
            process = subprocess.Popen(
                [sys.executable, *program, *map(str, options)],
                env=environment,
                stdout=output,
                stderr=output,
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{given['port']}", timeout=60) as client:
                STARTING.wait_until(lambda: _answers(client), process, log, timeout_s=120)
                yield Site(client, psutil.Process(process.pid))
        finally:
            STARTING.end(process)
        assert process.returncode != -signal.SIGKILL, "it did not end when it was told to"

    return start


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def write_embedding(folder: Path, seed: int, *, hidden: int, layers: int, tokens: int) -> Path:
    """A sealed embedding folder with random weights; another seed is another model."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ElectraConfig, ElectraModel

    from serving.sentence_encoder import SentenceEncoder, save_sentence_encoder

    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    numbers = {token: number for number, token in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(known[:5])
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    config = ElectraConfig(
        vocab_size=len(known),
        embedding_size=hidden,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=4 * hidden,
        max_position_embeddings=tokens,
    )
    save_sentence_encoder(SentenceEncoder(ElectraModel(config)), folder / "source")
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = {"name": "reviews", "architecture": "electra", "dimensions": hidden}
    spec |= {"max_tokens": tokens, "overlap_tokens": 8}
    write_embedding_spec(folder, EmbeddingSpec(**spec))
    write_manifest(folder, EMBEDDING_KIND, {"seed": seed})
    return folder


def embedding_deployment(folder: Path, version: str) -> EmbeddingDeployment:
    """What serves an embedding folder."""
    return EmbeddingDeployment(
        model_name="matjip-embedding",
        version=version,
        folder=folder,
        manifest_digest=read_manifest(folder).digest,
        evidence_id=f"evidence-{version}",
        created_at=MADE,
    )


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> list[EmbeddingDeployment]:
    """Two small embedding models, as deployments of version 1 and 2."""
    folder = tmp_path_factory.mktemp("embeddings")
    return [
        embedding_deployment(
            write_embedding(folder / version, int(version), hidden=32, layers=1, tokens=64), version
        )
        for version in ("1", "2")
    ]


@pytest.fixture(scope="session")
def slow_embedding(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingDeployment:
    """A model that takes tens of milliseconds for a text of its whole length, 512 tokens."""
    folder = tmp_path_factory.mktemp("slow")
    write_embedding(folder, 1, hidden=256, layers=4, tokens=512)
    return embedding_deployment(folder, "1")


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> list[Deployment]:
    """Two small classifiers, each as the one arm of a deployment, version 1 and 2."""
    write = runpy.run_path(str(TESTS / "serving" / "conftest.py"))["write_tiny_model"]
    folder = tmp_path_factory.mktemp("classifiers")
    made = []
    for version in ("1", "2"):
        write(folder / version, int(version))
        arm = Arm(
            name="champion",
            model_name="sentiment",
            version=version,
            folder=folder / version,
            manifest_digest=read_manifest(folder / version).digest,
            evidence_id=f"evidence-{version}",
            share=1.0,
        )
        made.append(
            Deployment(
                experiment_id="faults", salt="a salt for tests", created_at=MADE, arms=(arm,)
            )
        )
    return made
