"""Notices reach a real server on loopback, whatever happens on the way."""

import hashlib
import hmac
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from data.errors import ExperimentError, SettingsError
from serving.experiments.notices import Notifier, Webhook, signature
from serving.experiments.routes import now_us

SECRET = "국물이-진한-집의-비밀-0123456789"
SEND = """
import sys
from serving.experiments.notices import Notifier, Webhook
Notifier(sys.argv[1], Webhook(sys.argv[2], sys.argv[3])).deliver()
"""


class Receiver(ThreadingHTTPServer):
    """Takes notices; the first answers are ``statuses``, and ``hang`` keeps one open."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.taken: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.statuses: list[int] = []
        self.hang, self.reached = threading.Event(), threading.Event()
        self.hang.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook?token=t0ken"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = self.headers["X-Matjip-Timestamp"].encode() + b"." + body
        right = "v1=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert self.headers["X-Matjip-Signature"] == right
        self.server.reached.set()
        self.server.hang.wait(30)
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        self.server.keys.append(self.headers["Idempotency-Key"])
        if status < 300:
            self.server.taken.append(json.loads(body))
        self.send_response(status)
        if status in {301, 307}:
            self.send_header("Location", self.server.url)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.hang.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def notify(url: str, receiver: Receiver) -> Iterator[Callable[..., Notifier]]:
    made = []

    def start(**options: Any) -> Notifier:
        webhook = {"tries": 3, "wait_s": 0.01} | options.pop("webhook", {})
        made.append(Notifier(url, Webhook(receiver.url, SECRET, **webhook), **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_every_change_is_told_in_order_and_once(
    open_phase: Any, notify: Callable[..., Notifier], receiver: Receiver
) -> None:
    phase = open_phase("canary")
    notifier = notify()
    assert notifier.deliver() == 2
    phase.act("pause", by="guardrails")
    phase.act("roll_back")
    assert notifier.deliver() == 2
    assert notifier.deliver() == 0

    assert receiver.keys == [f"sentiment-int8/{number}" for number in (1, 2, 3, 4)]
    assert [each["state"] for each in receiver.taken] == [
        "running",
        "running",
        "paused",
        "rolled_back",
    ]
    assert receiver.taken[2] == {
        "experiment": "sentiment-int8",
        "number": 3,
        "action": "pause",
        "by": "guardrails",
        "reason": "살펴보았다",
        "arm": None,
        "state": "paused",
        "phase": "canary",
        "deployment_id": phase.deployment.deployment_id,
        "opens_phase": False,
        "at_us": phase.entry.history[2].at_us,
    }


def test_on_both_databases(open_phase_at: Any, store_url: str, receiver: Receiver) -> None:
    phase = open_phase_at(store_url, "canary")
    with Notifier(store_url, Webhook(receiver.url, SECRET)) as notifier:
        assert notifier.deliver() == 2
        phase.act("abandon")
        assert notifier.deliver() == 1
        assert notifier.deliver() == 0
    assert receiver.keys == [f"sentiment-int8/{number}" for number in (1, 2, 3)]


def test_a_receiver_that_fails_first_gets_it_again(
    open_phase: Any, notify: Callable[..., Notifier], receiver: Receiver
) -> None:
    open_phase("shadow")
    receiver.statuses = [500, 429]
    assert notify().deliver() == 1
    assert receiver.keys == ["sentiment-int8/1"] * 3


@pytest.mark.parametrize("status", [500, 404, 307])
def test_what_was_refused_waits_for_the_next_call(
    open_phase: Any,
    notify: Callable[..., Notifier],
    receiver: Receiver,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    open_phase("canary")
    receiver.statuses = [status] * 2
    notifier = notify(webhook={"tries": 2})
    with pytest.raises(ExperimentError, match=f"'sentiment-int8': it answered {status}") as caught:
        notifier.deliver()
    assert not receiver.taken
    for hidden in (SECRET, "t0ken"):
        assert hidden not in str(caught.value)
    assert SECRET not in caplog.text
    assert notify().deliver() == 2
    assert [each["number"] for each in receiver.taken] == [1, 2]


def test_one_experiment_that_is_refused_does_not_hold_up_another(
    open_phase: Any, agreed: Any, notify: Callable[..., Notifier], receiver: Receiver
) -> None:
    phase = open_phase("shadow", {"name": "a"})
    open_phase("shadow", {"name": "b"})
    assert phase.entry.lifecycle.state == "running"
    receiver.statuses = [503]
    with pytest.raises(ExperimentError, match="'a': it answered 503"):
        notify(webhook={"tries": 1}).deliver()
    assert [each["experiment"] for each in receiver.taken] == ["b"]
    assert notify().deliver() == 1


def test_a_sender_that_is_killed_in_the_middle_leaves_it_to_the_next(
    open_phase: Any, url: str, notify: Callable[..., Notifier], receiver: Receiver
) -> None:
    open_phase("canary")
    receiver.hang.clear()
    sender = subprocess.Popen([sys.executable, "-c", SEND, url, receiver.url, SECRET])
    assert receiver.reached.wait(60)
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    receiver.hang.set()

    # Its lease holds until it runs out.
    assert notify().deliver() == 0
    later = notify(clock=lambda: now_us() + 21_000_000)
    assert later.deliver() == 2
    assert [each["number"] for each in receiver.taken][-2:] == [1, 2]


def test_while_one_sends_another_does_not(
    open_phase: Any, notify: Callable[..., Notifier], receiver: Receiver
) -> None:
    open_phase("canary")
    receiver.hang.clear()
    one, other = notify(), notify()
    sending = threading.Thread(target=one.deliver)
    sending.start()
    assert receiver.reached.wait(30)
    assert other.deliver() == 0
    receiver.hang.set()
    sending.join()
    assert receiver.keys == ["sentiment-int8/1", "sentiment-int8/2"]
    assert other.deliver() == 0


def test_without_a_receiver_it_is_an_error_and_nothing_is_lost(
    open_phase: Any, url: str, notify: Callable[..., Notifier], receiver: Receiver
) -> None:
    open_phase("shadow")
    nowhere = Webhook("http://127.0.0.1:1/hook", SECRET, tries=1)
    with (
        Notifier(url, nowhere) as notifier,
        pytest.raises(ExperimentError, match="'sentiment-int8': ConnectError"),
    ):
        notifier.deliver()
    assert notify().deliver() == 1


@pytest.mark.parametrize(
    ("address", "secret", "words"),
    [
        ("ftp://host/x", SECRET, "begins with 'ftp'"),
        ("file:///etc/passwd", SECRET, "begins with 'file'"),
        ("//host", SECRET, "begins with ''"),
        ("https://", SECRET, "names the host None"),
        ("https://host", "short", "has 5 characters"),
    ],
)
def test_addresses_and_secrets_are_checked_and_never_shown(
    address: str, secret: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        Webhook(address, secret)
    assert SECRET not in str(caught.value)
    shown = repr(Webhook("https://user:pass@host/t", SECRET))
    assert SECRET not in shown
    assert "pass" not in shown


def test_a_signature_is_of_timestamp_and_body() -> None:
    # By `printf '1.{}' | openssl dgst -sha256 -hmac key`.
    assert signature("key", "1", b"{}") == (
        "v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
    )
