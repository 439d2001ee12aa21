"""How tests start a server of their own, and end it.

Loaded by path (`runpy.run_path`): tests are no package. `tests/services/run` installs and prepares
what they need and names it in MATJIP_TEST_… variables. Nothing is skipped here: what cannot start
fails and says why.
"""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


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
