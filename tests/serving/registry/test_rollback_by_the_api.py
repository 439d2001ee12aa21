"""A phase that the API opens, and a roll-back by it: a real gateway, its registry, and traffic."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from data.manifest import read_manifest
from serving.deployment import Arm, Deployment
from serving.registry.connection import Registry

TOKEN = "open-the-kitchen-door"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
ARMS = [
    {"name": "now", "model": "models:/sentiment@champion"},
    {"name": "lighter", "model": "models:/sentiment@challenger"},
]


@pytest.fixture
def champion(
    registry: Registry, register: Any, give_alias: Any, tiny_models: dict[str, Path]
) -> Deployment:
    """Version 1 is champion and answers alone; version 2 is the challenger."""
    for number, arm in enumerate(("champion", "challenger"), start=1):
        register(tiny_models[arm], f"version-{number}", evidence_id=f"e{number}")
    give_alias("champion", "1")
    give_alias("challenger", "2")
    return Deployment(
        experiment_id="before",
        salt="a salt for tests",
        created_at="2026-11-22T00:00:00Z",
        arms=(
            Arm(
                name="champion",
                model_name="sentiment",
                version="1",
                folder=tiny_models["champion"],
                manifest_digest=read_manifest(tiny_models["champion"]).digest,
                evidence_id="e1",
                share=1.0,
            ),
        ),
    )


def ask(client: httpx.Client, start: int) -> set[str]:
    """The arms that answer 30 users; every one of them is answered."""
    arms = set()
    for unit in range(start, start + 30):
        review = {"text": "국물이 맛있어요", "unit": f"손님-{unit}"}
        answer = client.post("/v1/analyze", json={"reviews": [review]})
        assert answer.status_code == 200, answer.text
        arms.add(answer.json()["results"][0]["arm"])
    return arms


def dealt(client: httpx.Client) -> int:
    """The units that the phase has dealt."""
    return sum(arm["units"] for arm in client.get("/v1/experiments/lighter").json()["arms"])


def until(wanted: Any, seconds: float = 30.0) -> None:
    """Waits, for a limited time, for something to become true."""
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_everybody_is_back_at_the_control(
    champion: Deployment,
    registry: Registry,
    run_gateway: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = tmp_path / "live"
    live.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    settings = {"live": live, "admin_token": TOKEN, "reload_poll_s": 0.2}
    with (
        run_gateway(live, champion, **settings) as running,
        httpx.Client(base_url=running.url, timeout=120, headers=ADMIN) as client,
    ):
        agreed = {
            "name": "lighter",
            "hypothesis": "가벼운 모델도 똑같이 답한다",
            "owner": "리뷰 분석",
            "unit": "user",
            "arms": ARMS,
            "metrics": {"primary": {"name": "sentiment_accuracy", "direction": "increase"}},
            "phases": [{"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}}],
        }
        assert client.post("/v1/experiments", json=agreed).status_code == 200
        events = "/v1/experiments/lighter/events"
        said = {"reason": "시험", "by": "당번"}
        started = client.post(events, json=said | {"action": "start", "after": 0})
        assert started.status_code == 200, started.text
        serving = client.get("/v1/experiments/lighter").json()["phase"]["deployment_id"]
        until(lambda: client.get("/ready").json()["deployment_id"] == serving)
        assert ask(client, 0) == {"now", "lighter"}

        stopped = client.post(events, json=said | {"action": "roll_back", "after": 1})
        assert stopped.json()["state"] == "rolled_back"
        until(lambda: ask(client, 100) == {"now"})
        assert ask(client, 0) == {"now"}
        # Whom a route sent somewhere was not dealt by chance, and does not count.
        # Whom a route sent somewhere was not dealt by chance, and does not count.
        until(lambda: dealt(client) >= 30)  # counts are kept for two seconds
        ledger = client.get("/v1/ledger?model=sentiment").json()
        assert ledger["aliases"] == {"champion": "1", "challenger": "2"}
