"""Real servers: Label Studio, PostgreSQL, vLLM, a container engine with the main image, a browser.

`tests/services/run` installs and prepares what they need and names it in MATJIP_TEST_… variables.
Nothing is skipped here: a fixture that cannot start fails and says why.
"""

import codecs
import contextlib
import functools
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from kfp import local
from kfp.local import docker_task_handler
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
DOCKER = "/usr/bin/docker"
"""Debian's client, which brings BuildKit; others on the path may lack it."""


def prepared(variable: str) -> str:
    """What `tests/services/run` prepared under this name."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(
            f"{variable} is not set; run `make test-services`, "
            "or `tests/services/run tests/services/test_….py` for one file"
        )
    return value


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def free_address() -> str:
    """``127.0.0.1:PORT`` that nobody listens on."""
    return f"127.0.0.1:{free_port()}"


def wait_until(
    ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path, *, timeout_s: float
) -> None:
    """Wait for a server; fail with the end of its log if it exits or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return
        time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    state = "did not answer" if process.poll() is None else f"exited with {process.returncode}"
    pytest.fail(f"{process.args!r} {state}:\n{tail}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a server to stop; insist after a while."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A new, empty PostgreSQL database, as ``postgresql://…``; dropped after the test."""
    server = prepared("MATJIP_TEST_POSTGRES_URL")
    name = f"matjip_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield f"{server.rpartition('/')[0]}/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def crash_postgres() -> Callable[[], None]:
    """Ends PostgreSQL without a checkpoint, as a power cut would, and starts it again."""
    control = shlex.split(prepared("MATJIP_TEST_POSTGRES_CONTROL"))

    def crash() -> None:
        subprocess.run([*control, "restart", "--mode", "immediate"], check=True, cwd="/")

    return crash


@dataclass
class LabelStudioServer:
    """A Label Studio server; its data outlives ``stop``."""

    folder: Path
    port: int = field(default_factory=free_port)
    token: str = TOKEN
    email: str = "labels@example.com"
    password: str = "only-for-tests"
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = Path(prepared("MATJIP_TEST_LABEL_STUDIO")) / "venv" / "bin" / "label-studio"
        address = ("--internal-host", "127.0.0.1", "--port", str(self.port))
        settings = {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.folder),
            "LABEL_STUDIO_USERNAME": self.email,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            # Nothing is sent anywhere.
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
        }
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [program, "start", "--no-browser", *address],
                cwd=self.folder,
                env=os.environ | settings,
                stdout=output,
                stderr=output,
            )
        wait_until(self._answers, self.process, log, timeout_s=180)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A Label Studio server of this session with one account; use its ``url`` and ``token``."""
    folder = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(Path(prepared("MATJIP_TEST_LABEL_STUDIO")) / "data", folder)
    server = LabelStudioServer(folder)
    server.start()
    yield server
    server.stop()


def docker(*command: str) -> bool:
    """Whether the engine did it."""
    return subprocess.run([DOCKER, *command], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def container_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Docker engine of this session; returns its address, which DOCKER_HOST names meanwhile.

    It has no bridge: run containers with ``network_mode="host"``. Its layers outlive the session,
    so that an image is built whole only once; its pid file lets nobody else use them meanwhile.
    """
    root = Path(prepared("MATJIP_TEST_ENGINE"))
    if os.geteuid() != 0:
        pytest.fail("a container engine of the tests' own needs root; run `make test-services` so")
    root.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("engine")
    address = f"unix://{folder}/docker.sock"
    log = folder / "dockerd.log"
    offline = ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
    places = [f"--data-root={root}", f"--exec-root={folder}/exec", f"--pidfile={root}.pid"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["dockerd", *offline, *places, "--host", address], stdout=output, stderr=output
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        wait_until(
            lambda: docker("info"),
            process,
            log,
            timeout_s=90,
        )
        yield address
        docker("image", "prune", "--all", "--force", "--filter", "until=72h")
        docker("builder", "prune", "--force", "--keep-storage", "8GB")
    end(process)
    # The engine leaves this mount behind, and its folder could not be deleted.
    left = folder / "exec" / "netns" / "default"
    subprocess.run(["umount", left], capture_output=True, check=False)


@pytest.fixture(scope="session")
def main_image(container_engine: str) -> str:
    """The main image, built from this checkout by components/images/build; its name for KFP.

    Put it in the place of a component's ``base_image``, or in a placement's ``images["main"]``.
    Steps run as user 10001 unless DockerRunner gets ``user=…``; see ``container_root``.
    """
    tarball = Path(prepared("MATJIP_TEST_BASE"))
    base = f"matjip-base:{tarball.stat().st_mtime_ns}"
    if not docker("image", "inspect", base) and not docker("import", str(tarball), base):
        pytest.fail(f"the engine cannot import {str(tarball)!r}; delete it and run again")
    built = subprocess.run(
        ["components/images/build", "--base", base],
        cwd=ROOT,
        env=os.environ | {"DOCKER": DOCKER},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.fail(f"components/images/build failed:\n{built.stdout}")
    name: str = yaml.safe_load((ROOT / "var" / "images.yaml").read_text())["images"]["main"]
    return name


def run_to_its_end(
    client: Any, image: str, command: list[str], volumes: dict[str, Any], **options: Any
) -> int:
    """In the place of kfp.local's own, which has the engine remove a container as it ends.

    If the container is gone before KFP asks how it ended, KFP says that it went well: with kfp
    2.17.0 about every other step that fails counts as succeeded. It also decodes the log piece by
    piece, and fails where a Korean letter stands across two pieces.
    """
    container = client.containers.run(image, command, detach=True, volumes=volumes, **options)
    try:
        letters = codecs.getincrementaldecoder("utf-8")("replace")
        for piece in container.logs(stream=True):
            print(letters.decode(piece), end="")
        status: int = container.wait()["StatusCode"]
        return status
    finally:
        container.remove(force=True)


@pytest.fixture
def docker_runner(
    container_engine: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., local.DockerRunner]:
    """Makes a DockerRunner for `local.init` that tells a failed step from a good one.

    Takes what ``docker run`` takes (``user``, ``environment``, ``mounts``, …).
    """
    monkeypatch.setattr(docker_task_handler, "run_docker_container", run_to_its_end)
    return functools.partial(local.DockerRunner, network_mode="host")


@pytest.fixture
def container_root(tmp_path: Path) -> Path:
    """A pipeline root that any user in a container may write to."""
    folder = tmp_path / "root"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@dataclass
class VllmServer:
    """A vLLM in a process of its own, started as `make serve-llm` starts it."""

    url: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        end(self.process)

    def kill(self) -> None:
        """At once, with what it started: a group of its own."""
        os.killpg(self.process.pid, signal.SIGKILL)

    async def running(self, client: httpx.AsyncClient) -> int:
        """How many requests it is working on at this moment."""
        return int(await self.metric(client, "num_requests_running"))

    async def metric(self, client: httpx.AsyncClient, name: str) -> float:
        """One number of what it tells Prometheus."""
        lines = (await client.get(f"{self.url}/metrics")).text.splitlines()
        [line] = [each for each in lines if each.startswith(f"vllm:{name}{{")]
        return float(line.rpartition(" ")[2])


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, int8, first and second: a random model that cites evidence, its INT8, two adapters."""
    folder = tmp_path_factory.mktemp("language")
    runpy.run_path(str(ROOT / "tests" / "tiny_language_model.py"))["write_family"](folder, seed=27)
    return folder


@pytest.fixture(scope="session")
def fakes() -> Any:
    """What tests/fake_language.py holds."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "fake_language.py")))


@pytest.fixture(scope="module")
def start_vllm() -> Iterator[Callable[..., VllmServer]]:
    """Starts vLLM's CPU build and waits until it answers; about a minute and a half, 3 GB.

    Takes the model's folder, a folder for the log, and options of `serving.vllm_launch serve`. One
    at a time: stop it before the next is started.
    """
    python = Path(prepared("MATJIP_TEST_VLLM")) / "bin" / "python"
    started: list[VllmServer] = []

    def start(model: Path, folder: Path, *options: str, port: int | None = None) -> VllmServer:
        port = port or free_port()
        log = folder / "vllm.log"
        command = [sys.executable, "-m", "serving.vllm_launch", "serve", str(model)]
        command += ["--profile", "cpu", "--python", str(python), "--port", str(port), *options]
        with log.open("wb") as output:
            # A group of its own: what it starts is ended with it, also after a kill.
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        server = VllmServer(f"http://127.0.0.1:{port}", log, process)
        started.append(server)
        wait_until(lambda: _healthy(server.url), process, log, timeout_s=400)
        return server

    yield start
    for server in started:
        server.stop()
        with contextlib.suppress(ProcessLookupError):
            server.kill()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window, that reaches this machine only.

    Of one module, because Playwright keeps an event loop running for as long as it is open.
    """
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield chromium
        chromium.close()
