"""A gateway that guards what it serves: by rows in the store, and by requests of its own."""

import itertools
import json
import runpy
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, generate_latest

from data.errors import EngineError, ExperimentError
from serving.experiments.catalogue import Catalogue, Served
from serving.experiments.lifecycle import Event
from serving.experiments.specification import specification_of
from serving.experiments.store import ExperimentStore
from serving.gateway.app import create_app
from serving.gateway.guardrail_metrics import GuardrailMetrics
from serving.gateway.guardrails import Guarded, Guardrails
from serving.gateway.language_schemas import UNIT_HEADER
from serving.gateway.settings import read_settings

OPEN_PHASE = Path(__file__).parents[2] / "open_phase.py"
ERRORS = {"name": "error_rate", "direction": "decrease", "margin": 0.02}
SLOWER = {"name": "latency_ms", "direction": "decrease", "margin": 15.0}
MEDIAN = SLOWER | {"quantile": 0.5}
SECRET = "국밥집-주방의-비밀-0123456789"


def agreed(**metrics: Any) -> dict[str, Any]:
    primary = {"name": "sentiment_accuracy", "direction": "increase"}
    return {
        "name": "second-model",
        "hypothesis": "두 번째 모델도 손님의 말을 잘 알아듣는다",
        "owner": "review-analysis",
        "unit": "user",
        "arms": [
            {"name": "champion", "model": "models:/sentiment@champion"},
            {"name": "challenger", "model": "models:/sentiment/2"},
        ],
        "metrics": {"primary": primary, "guardrails": [ERRORS]} | metrics,
        "phases": [{"kind": "ab", "allocation": {"champion": 0.5, "challenger": 0.5}}],
    }


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def open_phase(url: str) -> Iterator[Callable[..., Any]]:
    store, catalogue = ExperimentStore(url), Catalogue(url)
    opened = runpy.run_path(str(OPEN_PHASE))["OpenPhase"]
    yield lambda values, models=None: opened(store, catalogue, values, "ab", models)
    catalogue.close()
    store.close()


class Watched:
    """Guardrails of some deployments, their metrics, and whom they forced."""

    def __init__(self, url: str, *phases: Any):
        self.registry, self.forced = CollectorRegistry(), list[tuple[str, str]]()
        self.served = [
            Guarded(phase.deployment, lambda *turned: self.forced.append(turned))
            for phase in phases
        ]
        metrics = GuardrailMetrics(self.registry)
        self.guardrails = Guardrails(url, served=lambda: self.served, metrics=metrics)

    def page(self) -> str:
        return generate_latest(self.registry).decode()


def failing(arm: str) -> dict[str, Any]:
    error = {"status": "failed", "prediction": b'{"error": "engine_failed"}'}
    return error if arm == "challenger" else {}


def test_a_breach_is_acted_on_once_told_and_followed_at_once(open_phase: Any, url: str) -> None:
    phase = open_phase(agreed())
    one, other = Watched(url, phase), Watched(url, phase)
    phase.answer(60)
    assert not one.guardrails.turn()
    labels = 'arm="challenger",experiment="second-model",metric="error_rate"'
    assert f"matjip_guardrail_breaches_total{{{labels}}} 0.0" in one.page()
    assert 'matjip_experiment_state{experiment="second-model",state="running"} 1.0' in one.page()

    phase.answer(200, failing)
    one.guardrails.turn()
    other.guardrails.turn()

    assert [each.event.action for each in phase.entry.history] == ["start", "roll_back"]
    assert one.forced == [(phase.deployment.deployment_id, "champion")]
    assert other.forced == []
    assert f"matjip_guardrail_breaches_total{{{labels}}} 1.0" in one.page()
    for watched in (one, other):
        watched.guardrails.turn()
        state = 'matjip_experiment_state{experiment="second-model",state="rolled_back"} 1.0'
        assert state in watched.page()
        watched.guardrails.close()
    assert len(phase.entry.history) == 2


def test_what_is_served_no_more_is_told_of_no_more(open_phase: Any, url: str) -> None:
    phase = open_phase(agreed())
    phase.answer(60)
    watched = Watched(url, phase)
    watched.guardrails.turn()
    watched.served.clear()
    watched.guardrails.turn()
    assert "matjip_experiment_state{" not in watched.page()
    assert "matjip_guardrail_difference{" not in watched.page()
    watched.guardrails.close()


def test_one_experiment_that_cannot_be_looked_at_unguards_no_other(
    open_phase: Any, url: str
) -> None:
    phase = open_phase(agreed())
    stranger = phase.deployment.model_copy(update={"experiment_id": "unknown"})
    watched = Watched(url, phase)
    watched.served.insert(0, Guarded(stranger, lambda *_: None))
    phase.answer(200, failing)
    with pytest.raises(ExperimentError, match="there is no experiment 'unknown'"):
        watched.guardrails.turn()
    assert phase.entry.lifecycle.state == "rolled_back"
    watched.guardrails.close()


def test_while_the_store_is_away_it_says_so_and_then_goes_on(
    open_phase: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = open_phase(agreed())
    watched = Watched(url, phase)
    phase.answer(120, failing)
    with monkeypatch.context() as broken:
        away = ExperimentError("cannot read metrics from the experiment store; bring it back")

        def fail(*_: Any) -> None:
            raise away

        broken.setattr("serving.experiments.metric_feed.MetricFeed._read_outcomes", fail)
        broken.setattr("serving.experiments.tail.Tail._page", fail)
        with pytest.raises(ExperimentError, match="bring it back"):
            watched.guardrails.turn()
    watched.guardrails.turn()
    assert phase.entry.lifecycle.state == "rolled_back"
    watched.guardrails.close()


def test_a_deployment_of_no_phase_is_left_alone(open_phase: Any, url: str) -> None:
    phase = open_phase(agreed())
    bare = phase.deployment.model_copy(update={"phase": None})
    watched = Watched(url, phase)
    watched.served = [Guarded(bare, lambda *_: None)]
    assert not watched.guardrails.turn()
    watched.guardrails.close()


@pytest.fixture
def site(open_phase: Any, deployment: Any) -> Callable[..., Any]:
    """A phase whose arms are real, small models."""
    models = {arm.name: arm for arm in deployment.arms}
    return lambda **metrics: open_phase(agreed(**metrics), models)


QUICK = {"guardrail_poll_s": 0.1, "route_poll_s": 0.1}
CUSTOMERS = itertools.count()


def ask(client: httpx.Client) -> httpx.Response:
    review = {"text": "국물이 맛있어요", "unit": f"손님-{next(CUSTOMERS)}"}
    return client.post("/v1/analyze", json={"reviews": [review]})


def ask_until(client: httpx.Client, what: Callable[[], bool], most: int = 3_000) -> int:
    """How many new customers came until it was so."""
    for number in range(most):
        if number % 10 == 0 and what():
            return number
        ask(client)
    raise AssertionError(f"it was not so after {most} requests")


def assert_all_by_the_champion(client: httpx.Client) -> None:
    for _ in range(40):
        answer = ask(client)
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["arm"] == "champion"


def test_an_arm_that_always_fails_is_rolled_back_and_everybody_answered(
    start_embedding: Any, faulty: Any, fakes: Any, site: Callable[..., Any]
) -> None:
    phase, told, hook = site(guardrails=[ERRORS, SLOWER, MEDIAN]), [], FastAPI()

    @hook.post("/hook")
    async def take(request: Request) -> None:
        told.append(json.loads(await request.body()))

    serve = {"deployment": phase.deployment}
    with fakes.serve(hook) as receiver:
        webhook = {"webhook_url": f"{receiver}/hook", "webhook_secret": SECRET}
        with (
            start_embedding(serve=serve, **QUICK, **webhook) as client,
            start_embedding(serve=serve, **QUICK) as other,
        ):
            for challenger in faulty[1::2]:
                challenger.fault = "nan"
            asked = ask_until(client, lambda: phase.entry.lifecycle.state != "running")
            assert asked >= 60
            # The one that acted follows at once, the other with its next look at the routes.
            wait_for(lambda: [route_of(each) for each in (client, other)] == ["champion"] * 2)
            for each in (client, other):
                assert_all_by_the_champion(each)
            wait_for(lambda: len(told) == 2)
            page = client.get("/metrics").text
    last = phase.entry.history[-1].event
    assert len(phase.entry.history) == 2
    assert (last.action, last.by) == ("roll_back", "guardrails")
    assert "'error_rate' of 'challenger' is 1 over" in last.reason
    assert [each["state"] for each in told] == ["running", "rolled_back"]
    assert 'matjip_experiment_state{experiment="second-model",state="rolled_back"} 1.0' in page


def route_of(client: httpx.Client) -> str | None:
    arm: str | None = client.get("/ready").json()["route"]["arm"]
    return arm


def wait_for(what: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_slow_arm_is_rolled_back(
    start_embedding: Any, faulty: Any, site: Callable[..., Any]
) -> None:
    phase = site(guardrails=[ERRORS, MEDIAN])
    with start_embedding(serve={"deployment": phase.deployment}, **QUICK) as client:
        faulty[1].fault = "slow"
        ask_until(client, lambda: phase.entry.lifecycle.state != "running")
        wait_for(lambda: route_of(client) == "champion")
        assert_all_by_the_champion(client)
    last = phase.entry.history[-1].event
    assert last.action == "roll_back"
    assert "'latency_ms p50' of 'challenger'" in last.reason


def test_a_signal_only_pauses(start_embedding: Any, faulty: Any, site: Callable[..., Any]) -> None:
    phase = site(signals=[MEDIAN])
    with start_embedding(serve={"deployment": phase.deployment}, **QUICK) as client:
        faulty[1].fault = "slow"
        ask_until(client, lambda: phase.entry.lifecycle.state != "running")
        wait_for(lambda: route_of(client) == "champion")
        assert_all_by_the_champion(client)
        assert phase.entry.lifecycle.state == "paused"
        faulty[1].fault = ""
        phase.act("resume")
        wait_for(lambda: route_of(client) is None)
        for _ in range(60):
            ask(client)
    assert phase.entry.lifecycle.state == "running"


def test_a_good_arm_stays_and_what_is_off_guards_nothing(
    start_embedding: Any, faulty: Any, site: Callable[..., Any]
) -> None:
    phase = site(guardrails=[ERRORS, MEDIAN])
    serve = {"deployment": phase.deployment}
    with start_embedding(serve=serve, **QUICK) as client:
        for _ in range(150):
            assert ask(client).status_code == 200
        wait_for(lambda: "matjip_guardrail_least_loss{" in client.get("/metrics").text)
        assert client.get("/ready").json()["warnings"] == []
    assert phase.entry.lifecycle.state == "running"

    with start_embedding(serve=serve, guardrails="off", **QUICK) as client:
        faulty[3].fault = "nan"
        for _ in range(150):
            ask(client)
        page = client.get("/metrics").text
    assert "matjip_guardrail_least_loss{" not in page
    assert phase.entry.lifecycle.state == "running"


class BrokenEngine:
    """A language model that answers nothing."""

    name = "broken"

    async def complete(self, requests: Any) -> Any:
        raise EngineError("the model is out of order; restart it")


def test_a_language_model_that_always_fails_is_rolled_back(
    fakes: Any, engine: Any, chat: Any, url: str
) -> None:
    with closing(Catalogue(url)) as catalogue:
        said = specification_of(agreed(), where="experiment")
        catalogue.put(said)
        arms = [{"kind": "in_process", "folder": f"/models/{name}"} for name in ("old", "new")]
        deployment = fakes.language_deployment(
            *arms, experiment_id=said.name, phase=said.plan(said.phases[0], version=1, number=1)
        )
        served = Served("language", deployment.deployment_id, deployment.model_dump(mode="json"))
        start = Event(action="start", by="사람", reason="새 모델을 견주어 본다")
        catalogue.record(said.name, start, serves=served)

        def state() -> str:
            return catalogue.get(said.name).lifecycle.state

        settings = {f"MATJIP_{name.upper()}": str(value) for name, value in QUICK.items()}
        app = create_app(
            read_settings(settings | {"MATJIP_STORE_URL": url}),
            language=deployment,
            load=lambda arm, _: BrokenEngine() if arm.name == "challenger" else engine,
        )
        with fakes.serve(app) as root, httpx.Client(base_url=root, timeout=30) as client:

            def one() -> httpx.Response:
                unit = f"손님-{next(CUSTOMERS)}".encode()
                answer: httpx.Response = chat(client, {UNIT_HEADER: unit})
                return answer

            assert {one().status_code for _ in range(30)} == {200, 503}
            wait_for(lambda: one().status_code in {200, 503} and state() != "running", 60)
            wait_for(lambda: client.get("/ready").json()["language"]["route"]["arm"] == "champion")
            assert {one().status_code for _ in range(30)} == {200}
        assert state() == "rolled_back"
