"""A Label Studio server, and a browser to look at it."""

import os
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

STARTING: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "starting.py")))
TOKEN = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LabelStudioServer:
    """A Label Studio server; its data outlives ``stop``."""

    folder: Path
    port: int = field(default_factory=STARTING.free_port)
    token: str = TOKEN
    email: str = "labels@example.com"
    password: str = "only-for-tests"
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        program = (
            Path(STARTING.prepared("MATJIP_TEST_LABEL_STUDIO")) / "venv" / "bin" / "label-studio"
        )
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
        STARTING.wait_until(self._answers, self.process, log, timeout_s=180)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            STARTING.end(self.process)
            self.process = None


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudioServer]:
    """A Label Studio server of this session with one account; use its ``url`` and ``token``."""
    folder = tmp_path_factory.mktemp("label-studio") / "data"
    shutil.copytree(Path(STARTING.prepared("MATJIP_TEST_LABEL_STUDIO")) / "data", folder)
    server = LabelStudioServer(folder)
    server.start()
    yield server
    server.stop()


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
