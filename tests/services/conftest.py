"""A free address, and PostgreSQL: what several kinds of servers are tested with."""

import runpy
import shlex
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

STARTING: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("starting.py"))))


@pytest.fixture
def free_address() -> str:
    """``127.0.0.1:PORT`` that nobody listens on."""
    return f"127.0.0.1:{STARTING.free_port()}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A new, empty PostgreSQL database, as ``postgresql://…``; dropped after the test."""
    server = STARTING.prepared("MATJIP_TEST_POSTGRES_URL")
    name = f"matjip_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    yield f"{server.rpartition('/')[0]}/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def crash_postgres() -> Callable[[], None]:
    """Ends PostgreSQL without a checkpoint, as a power cut would, and starts it again."""
    control = shlex.split(STARTING.prepared("MATJIP_TEST_POSTGRES_CONTROL"))

    def crash() -> None:
        subprocess.run([*control, "restart", "--mode", "immediate"], check=True, cwd="/")

    return crash
