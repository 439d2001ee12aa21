"""Notices: every change of every experiment, sent to a webhook at least once, in order.

    POST the address
    Content-Type: application/json
    Idempotency-Key: EXPERIMENT/NUMBER          the same for a notice that is sent again
    X-Matjip-Timestamp: seconds since 1970
    X-Matjip-Signature: v1=HEX                  HMAC-SHA256 of the timestamp, a dot and the body,
                                                with the secret that both sides know

    {"experiment": …, "number": …, "action": …, "by": …, "reason": …, "arm": …, "state": …,
     "phase": …, "deployment_id": …, "at_us": …}

How far each experiment's events were delivered stands in the store, and moves on once the receiver
has answered with 2xx. So whoever comes next, after a kill or in another process, delivers the rest;
a lease keeps two from sending at once, as far as that can be. A receiver compares signatures in
constant time, refuses old timestamps, and takes each key once.
"""

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import orjson
import sqlalchemy as sa
from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential,
)

from data.errors import ExperimentError, SettingsError
from serving.experiments.catalogue import Catalogue, Entry, Recorded
from serving.experiments.database import act_alone, open_database, reported
from serving.experiments.lifecycle import OPENING, Lifecycle
from serving.experiments.routes import now_us
from serving.experiments.tables import experiment_events, experiment_settings

LEAST_SECRET: Final = 16
_TIMEOUT_S: Final = 5.0
_LEASE_US: Final = 20_000_000
"""Longer than one notice may take, with its tries; it is taken anew for each."""
_LEASE: Final = "webhook-lease"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webhook:
    """Where notices go.

    Attributes:
        url: http or https.
        secret: that signs them.
        tries: of one notice before it is left for the next call.
        wait_s: before the second try; doubled before each further one.
    """

    url: str = field(repr=False)
    secret: str = field(repr=False)
    tries: int = 3
    wait_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse an address that is none, and a secret that is easily guessed.

        Neither is shown: both may hold what nobody else should know.

        Raises:
            SettingsError: it is one of these.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError(
                f"the webhook's address begins with {parts.scheme!r} and names the host "
                f"{parts.hostname!r}; set MATJIP_WEBHOOK_URL to http://… or https://…"
            )
        if len(self.secret) < LEAST_SECRET:
            raise SettingsError(
                f"the webhook's secret has {len(self.secret)!r} characters; set "
                f"MATJIP_WEBHOOK_SECRET to {LEAST_SECRET} or more, such as `openssl rand -hex 32`"
            )

    @property
    def host(self) -> str:
        """For messages: the rest of the address may hold a password or a token."""
        return urlsplit(self.url).hostname or ""


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What ``X-Matjip-Signature`` says of a body."""
    signed = f"{timestamp}.".encode() + body
    return "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def notice_of(entry: Entry, recorded: Recorded) -> dict[str, Any]:
    """What is told of one event.

    Args:
        entry: the experiment.
        recorded: one of its events.
    """
    before = [each.event for each in entry.history[: recorded.number]]
    here = Lifecycle.of(entry.lifecycle.specification, before)
    current = here.current
    return {
        "experiment": entry.lifecycle.specification.name,
        "number": recorded.number,
        "action": recorded.event.action,
        "by": recorded.event.by,
        "reason": recorded.event.reason,
        "arm": recorded.event.arm,
        "state": here.state,
        "phase": None if current is None else current.phase.kind,
        "deployment_id": None if current is None else current.deployment_id,
        "opens_phase": recorded.event.action in OPENING,
        "at_us": recorded.at_us,
    }


class Notifier:
    """Delivers what was not delivered yet. Used from one thread at a time."""

    def __init__(self, url: str, webhook: Webhook, *, clock: Callable[[], int] = now_us):
        """Open the store.

        Args:
            url: of the store.
            webhook: where notices go.
            clock: microseconds since 1970.

        Raises:
            ExperimentError: the database cannot be opened.
        """
        self._engine = open_database(url)
        self._catalogue = Catalogue(url)
        self._webhook = webhook
        self._clock = clock
        self._own = secrets.token_hex(8)
        self._stopping = threading.Event()
        # A redirect would carry the signature elsewhere; a proxy of the environment is not asked.
        self._client = httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False)

    def __enter__(self) -> Self:
        """Open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of every connection."""
        self.close()

    def stop(self) -> None:
        """Try nothing again from now on; from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of every connection."""
        self._client.close()
        self._catalogue.close()
        self._engine.dispose()

    def deliver(self) -> int:
        """Send every notice that nobody has taken yet; returns how many were taken.

        An experiment whose notice is refused waits, so that its order is kept; others go on.

        Raises:
            ExperimentError: the store cannot be read or written, or the receiver did not take a
                notice; it is sent again by the next call.
        """
        taken, refused = 0, []
        for name in self._waiting():
            if self._stopping.is_set():
                break
            try:
                taken += self._deliver(name)
            except httpx.HTTPError as error:
                refused.append(f"{name!r}: {_why(error)}")
        self._release()
        if refused:
            raise ExperimentError(
                f"the webhook at {self._webhook.host!r} did not take the notices of "
                f"{'; '.join(refused)}; they are sent again until it answers with 2xx"
            )
        return taken

    def _waiting(self) -> list[str]:
        """Experiments that have events nobody has taken."""
        last = sa.select(
            experiment_events.c.name, sa.func.max(experiment_events.c.number).label("number")
        ).group_by(experiment_events.c.name)
        settings = sa.select(experiment_settings.c.name, experiment_settings.c.value)
        settings = settings.where(experiment_settings.c.name.startswith("webhook-"))
        with (
            reported(self._engine, "read the events of"),
            self._engine.connect() as connection,
        ):
            newest = connection.execute(last).all()
            stored = {row.name: row.value for row in connection.execute(settings)}
        return sorted(
            row.name for row in newest if int(stored.get(_cursor(row.name), 0)) < row.number
        )

    def _deliver(self, name: str) -> int:
        taken, entry = 0, self._catalogue.get(name)
        while (number := self._next(name)) is not None and number <= len(entry.history):
            notice = notice_of(entry, entry.history[number - 1])
            self._send(orjson.dumps(notice), key=f"{name}/{number}")
            self._keep(_cursor(name), number)
            taken += 1
        return taken

    def _next(self, name: str) -> int | None:
        """The number of the next event to send, if this process may send; takes the lease."""
        with (
            reported(self._engine, "take the webhook's lease in"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            holder, _, until = (_value(connection, _LEASE) or "").partition(" ")
            now = self._clock()
            # A lease from the future is one of a clock that was wrong.
            if holder not in {"", self._own} and now < int(until) <= now + _LEASE_US:
                return None
            _set(connection, _LEASE, f"{self._own} {now + _LEASE_US}", now)
            return int(_value(connection, _cursor(name)) or 0) + 1

    def _release(self) -> None:
        with (
            reported(self._engine, "return the webhook's lease to"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            if (_value(connection, _LEASE) or "").startswith(f"{self._own} "):
                _set(connection, _LEASE, f"{self._own} 0", self._clock())

    def _keep(self, setting: str, number: int) -> None:
        with (
            reported(self._engine, "write down a delivered notice in"),
            self._engine.begin() as connection,
        ):
            act_alone(connection)
            # One whose lease ran out while it sent must not take back what others delivered since.
            if number > int(_value(connection, setting) or 0):
                _set(connection, setting, str(number), self._clock())

    def _send(self, body: bytes, *, key: str) -> None:
        """POST until it is taken.

        Raises:
            httpx.HTTPError: it was not, in all tries.
        """
        tries = Retrying(
            stop=stop_after_attempt(self._webhook.tries) | stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            wait=wait_exponential(multiplier=self._webhook.wait_s, max=2.0),
            retry=retry_if_exception_type(httpx.HTTPError),
            reraise=True,
        )
        for attempt in tries:
            with attempt:
                timestamp = str(int(time.time()))
                self._client.post(
                    self._webhook.url,
                    content=body,
                    headers={
                        "Content-Type": "application/json",
                        "Idempotency-Key": key,
                        "X-Matjip-Timestamp": timestamp,
                        "X-Matjip-Signature": signature(self._webhook.secret, timestamp, body),
                    },
                ).raise_for_status()
        _log.info("the webhook at %s took notice %s", self._webhook.host, key)


def _cursor(name: str) -> str:
    # A setting's name is as short as an experiment's may be long.
    return f"webhook-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _value(connection: sa.Connection, name: str) -> str | None:
    query = sa.select(experiment_settings.c.value).where(experiment_settings.c.name == name)
    found: str | None = connection.execute(query).scalar()
    return found


def _set(connection: sa.Connection, name: str, value: str, at_us: int) -> None:
    """Within a transaction that ``act_alone`` has begun."""
    here = experiment_settings.c.name == name
    changed = connection.execute(
        experiment_settings.update().where(here).values(value=value, created_at_us=at_us)
    )
    if not changed.rowcount:
        connection.execute(
            experiment_settings.insert().values(name=name, value=value, created_at_us=at_us)
        )


def _why(error: httpx.HTTPError) -> str:
    """What the receiver did, without the address, which httpx repeats."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered {error.response.status_code}"
    return type(error).__name__
