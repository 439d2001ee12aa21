"""Real parts made small: untrained models, vLLM's settings changed, and a gateway in a process."""

import functools
import os
import runpy
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import yaml

from data.contract import CONTRACT_VERSION
from data.manifest import write_manifest
from serving.deployment import Arm, Deployment, write_deployment
from serving.model_folder import MODEL_KIND, ModelFormat, ModelSpec, write_spec
from serving.vllm_settings import DEFAULT_PATH, LaunchSettings, read_launch

MAKER = Path(__file__).parents[1] / "tiny_language_model.py"
WORDS = ["맛", "##있", "##어요", "별", "##로", "불친절", "친절", "국물", "존맛", "대기", "!", "."]
MakeModel = Callable[[str, int], Path]


def _tiny_parts(seed: int) -> tuple[Any, Any]:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import ElectraConfig

    from serving.encoder import MultiTaskElectra

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
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
        attn_implementation="eager",
    )
    model = MultiTaskElectra(config).eval()
    torch.nn.init.normal_(model.sentiment_head.weight, std=2.0)
    return model, tokenizer


def _seal(folder: Path, tokenizer: Any, model_format: ModelFormat, seed: int) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    write_spec(
        folder,
        ModelSpec(
            contract_version=CONTRACT_VERSION,
            format=model_format,
            architecture="electra",
            max_tokens=32,
            overlap_tokens=8,
        ),
    )
    write_manifest(folder, MODEL_KIND, {"seed": seed})
    return folder


def write_tiny_model(folder: Path, seed: int) -> Path:
    """A model folder with random weights; another seed is another model."""
    import torch

    folder.mkdir(parents=True)
    model, tokenizer = _tiny_parts(seed)
    example = torch.tensor([[2, 5, 6, 3], [2, 8, 3, 0]])
    names = ["sentiment", "intensity", "emotions", "aspects"]
    inputs = ["input_ids", "attention_mask"]
    axes = {name: {0: "batch", 1: "tokens"} for name in inputs}
    torch.onnx.export(
        model,
        (example, (example != 0).long()),
        str(folder / "model.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=inputs,
        output_names=names,
        dynamic_axes=axes | {name: {0: "batch"} for name in names},
    )
    return _seal(folder, tokenizer, "onnx-fp32", seed)


@pytest.fixture(scope="session")
def torch_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The torch folder of the weights that the champion of `tiny_models` has."""
    from serving.encoder import save_encoder

    folder = tmp_path_factory.mktemp("twin")
    model, tokenizer = _tiny_parts(1)
    save_encoder(model, folder)
    return _seal(folder, tokenizer, "torch-fp32", 1)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two different models, by arm."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "champion": write_tiny_model(folder / "champion", 1),
        "challenger": write_tiny_model(folder / "challenger", 2),
    }


@pytest.fixture(scope="session")
def deployment(tiny_models: dict[str, Path]) -> Deployment:
    """Champion and challenger, half each."""
    from data.manifest import read_manifest

    return Deployment(
        experiment_id="spine-test",
        salt="a salt for tests",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        arms=tuple(
            Arm(
                name=name,
                model_name="sentiment",
                version=version,
                folder=tiny_models[name],
                manifest_digest=read_manifest(tiny_models[name]).digest,
                evidence_id=f"evidence-{version}",
                share=0.5,
            )
            for name, version in (("champion", "1"), ("challenger", "2"))
        ),
    )


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


@pytest.fixture(scope="session")
def int8_of_base(tiny: Any, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random language model in INT8."""
    folder = tmp_path_factory.mktemp("int8") / "model"
    tiny.write_quantized(folder, tiny_base)
    return folder


@pytest.fixture
def write_launch(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Writes the house's settings of vLLM with some changed; a key's dots lead into sections."""

    def write(changes: Mapping[str, Any]) -> Path:
        settings = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
        for key, value in changes.items():
            *parents, last = key.split(".")
            section = settings
            for name in parents:
                section = section[name]
            section[last] = value
        path = tmp_path / "vllm.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    return write


@pytest.fixture
def launch(write_launch: Callable[[Mapping[str, Any]], Path]) -> Callable[..., LaunchSettings]:
    """The house's settings with some changed; two underscores stand for a dot."""

    def read(profile: str | None = None, **changes: Any) -> LaunchSettings:
        dotted = {name.replace("__", "."): value for name, value in changes.items()}
        return read_launch(write_launch(dotted), profile=profile)

    return read


@pytest.fixture
def option() -> Callable[[list[str], str], str]:
    """Reads the value of an option that is given once."""

    def value(arguments: list[str], name: str) -> str:
        assert arguments.count(name) == 1
        return arguments[arguments.index(name) + 1]

    return value


class RunningGateway:
    """A gateway in its own process."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path):
        self.process = process
        self.url = url
        self.log = log

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/health", timeout=2.0).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise RuntimeError(f"the gateway did not start:\n{self.log.read_text()}")


StartGateway = Callable[..., AbstractContextManager[RunningGateway]]


@pytest.fixture(scope="session")
def run_gateway() -> StartGateway:
    """Starts `python -m serving.gateway.app` on a free port, and stops it."""

    @contextmanager
    def start(folder: Path, deployment: Deployment, **settings: object) -> Iterator[RunningGateway]:
        path = folder / "deployment.json"
        write_deployment(path, deployment)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        given = {"store_url": f"sqlite:///{folder / 'store.db'}"} | settings
        environment = dict(os.environ) | {"OMP_NUM_THREADS": "1"}
        environment |= {f"MATJIP_{name.upper()}": str(value) for name, value in given.items()}
        log = folder / "gateway.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "serving.gateway.app",
                    "--deployment",
                    path,
                    "--port",
                    str(port),
                ],
                env=environment,
                stdout=output,
                stderr=output,
            )
        gateway = RunningGateway(process, f"http://127.0.0.1:{port}", log)
        try:
            gateway.wait_ready()
            yield gateway
        finally:
            process.terminate()
            process.wait(30)

    return start


@pytest.fixture
def start_gateway(run_gateway: StartGateway, tmp_path: Path) -> StartGateway:
    """A gateway of this test's own; its store is `tmp_path / "store.db"`."""
    return functools.partial(run_gateway, tmp_path)


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)],
)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of its own for the experiments: SQLite's, and PostgreSQL's where one runs."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'deep' / 'store.db'}"
        return
    server = os.environ.get("MATJIP_TEST_POSTGRES_URL")
    if not server:
        pytest.skip("MATJIP_TEST_POSTGRES_URL is not set; `make test-services` starts a server")
    # A database of its own, so that nothing is ever dropped that a test did not make.
    address = sa.make_url(server).set(drivername="postgresql+psycopg")
    name = f"matjip_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield address.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()
