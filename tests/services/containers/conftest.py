"""A container engine of the tests' own, and the main image in it."""

import codecs
import functools
import os
import runpy
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from kfp import local
from kfp.local import docker_task_handler

ROOT = Path(__file__).parents[3]
STARTING: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "starting.py")))
DOCKER = "/usr/bin/docker"
"""Debian's client, which brings BuildKit; others on the path may lack it."""


def docker(*command: str) -> bool:
    """Whether the engine did it."""
    return subprocess.run([DOCKER, *command], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def container_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Docker engine of this session; returns its address, which DOCKER_HOST names meanwhile.

    It has no bridge: run containers with ``network_mode="host"``. Its layers outlive the session,
    so that an image is built whole only once; its pid file lets nobody else use them meanwhile.
    """
    root = Path(STARTING.prepared("MATJIP_TEST_ENGINE"))
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
        STARTING.wait_until(
            lambda: docker("info"),
            process,
            log,
            timeout_s=90,
        )
        yield address
        docker("image", "prune", "--all", "--force", "--filter", "until=72h")
        docker("builder", "prune", "--force", "--keep-storage", "8GB")
    STARTING.end(process)
    # The engine leaves this mount behind, and its folder could not be deleted.
    left = folder / "exec" / "netns" / "default"
    subprocess.run(["umount", left], capture_output=True, check=False)


@pytest.fixture(scope="session")
def main_image(container_engine: str) -> str:
    """The main image, built from this checkout by components/images/build; its name for KFP.

    Put it in the place of a component's ``base_image``, or in a placement's ``images["main"]``.
    Steps run as user 10001 unless DockerRunner gets ``user=…``; see ``container_root``.
    """
    tarball = Path(STARTING.prepared("MATJIP_TEST_BASE"))
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
