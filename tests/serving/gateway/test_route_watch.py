"""Who answers everybody, as gateways at work find it in the store."""

import asyncio
import sqlite3
import time

import httpx
import orjson
import pytest

from data.errors import ExperimentError
from serving.deployment import write_deployment
from serving.experiments.routes import Routes
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.reloading import DeploymentFiles
from serving.gateway.route_watch import RouteWatch
from serving.gateway.routing import Routing
from serving.gateway.settings import ServingSettings
from serving.language_deployment import write_language_deployment

UNITS = [f"손님-{number}" for number in range(24)]
IN_PROCESS = {"kind": "in_process", "folder": "/models/base"}


def wait_for(what, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def arms_of(client: httpx.Client) -> set[str]:
    reviews = [{"text": "국물이 맛있어요", "unit": unit} for unit in UNITS]
    answer = client.post("/v1/analyze", json={"reviews": reviews})
    assert answer.status_code == 200, answer.text
    return {item["arm"] for item in answer.json()["results"]}


def route_of(client: httpx.Client) -> str | None:
    return client.get("/ready").json()["route"]["arm"]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def routes(url):
    opened = Routes(url)
    yield opened
    opened.close()


def turn(routes, deployment_id, arm):
    routes.turn(deployment_id, arm, by="당직자", reason="대기가 길어졌다")


def test_everybody_is_turned_and_dealt_again_while_the_gateway_runs(
    start_embedding, deployment, routes, tmp_path
):
    this = deployment.deployment_id
    with start_embedding(serve={"deployment": deployment}, route_poll_s=0.05) as client:
        assert routes.get(this).content["arms"][0]["name"] == "champion"
        assert arms_of(client) == {"champion", "challenger"}
        assert client.get("/ready").json()["route"] == {"arm": None, "number": 0}
        for number, arm in enumerate(("champion", "challenger"), start=1):
            turn(routes, this, arm)
            wait_for(lambda arm=arm: route_of(client) == arm)
            assert client.get("/ready").json()["route"]["number"] == number
            assert arms_of(client) == {arm}
        page = client.get("/metrics").text
        turn(routes, this, None)
        wait_for(lambda: route_of(client) is None)
        assert arms_of(client) == {"champion", "challenger"}
    series = 'matjip_everybody_to_arm{arm="%s",deployment_id="%s",kind="sentiment"} %s'
    assert series % ("challenger", this, "1.0") in page
    assert series % ("champion", this, "0.0") in page
    store = sqlite3.connect(tmp_path / "store.db")
    counted = dict(store.execute("SELECT why, count(*) FROM exposures GROUP BY why"))
    store.close()
    assert counted == {"assigned": 2 * len(UNITS), "forced": 2 * len(UNITS)}


def test_a_route_of_before_holds_for_the_first_request_of_start_and_swap(
    start_embedding, deployment, routes, tmp_path
):
    other = deployment.model_copy(update={"salt": "another salt for tests"})
    for each, arm in ((deployment, "champion"), (other, "challenger")):
        content = each.model_dump(mode="json")
        routes.put("sentiment", each.deployment_id, each.experiment_id, content)
        turn(routes, each.deployment_id, arm)
    path = tmp_path / "deployment.json"
    write_deployment(path, deployment)
    serve = {"deployment": deployment, "files": DeploymentFiles(sentiment=path)}
    # Polls are so far apart that none comes: what holds was read before.
    with start_embedding(serve=serve, reload_poll_s=0.05, route_poll_s=60) as client:
        assert arms_of(client) == {"champion"}
        write_deployment(path, other)
        seen: list[set[str]] = []

        def swapped() -> bool:
            answer = client.post(
                "/v1/analyze", json={"reviews": [{"text": "별로", "unit": u} for u in UNITS]}
            ).json()
            if answer["deployment_id"] == other.deployment_id:
                seen.append({item["arm"] for item in answer["results"]})
            return bool(seen)

        wait_for(swapped)
        assert seen == [{"challenger"}]
        gone = f'deployment_id="{deployment.deployment_id}",kind="sentiment"'
        wait_for(lambda: gone not in client.get("/metrics").text)


def test_language_models_are_turned_and_swapped_by_file(
    fakes, engine, routes, url, tmp_path, exposures
):
    from serving.gateway.app import create_app

    first = fakes.language_deployment(IN_PROCESS, IN_PROCESS)
    second = first.model_copy(update={"salt": "another salt for tests"})
    path = tmp_path / "language.json"
    write_language_deployment(path, first)
    app = create_app(
        ServingSettings(store_url=url, route_poll_s=0.05, reload_poll_s=0.05),
        language=first,
        files=DeploymentFiles(language=path),
        load=lambda _arm, _settings: engine,
    )

    with fakes.serve(app) as served, httpx.Client(base_url=served, timeout=30) as client:

        def ready():
            return client.get("/ready").json()["language"]

        def arms():
            body = {"messages": [{"role": "user", "content": "국물은?"}]}
            answers = [
                client.post("/v1/chat/completions", json=body | {"user": unit}) for unit in UNITS
            ]
            return {answer.headers["X-Matjip-Arm"] for answer in answers}

        turn(routes, first.deployment_id, "champion")
        wait_for(lambda: ready()["route"]["arm"] == "champion")
        assert arms() == {"champion"}
        write_language_deployment(path, second)
        wait_for(lambda: ready()["deployment_id"] == second.deployment_id)
        assert ready()["route"] == {"arm": None, "number": 0}
        assert arms() == {"champion", "challenger"}
        write_language_deployment(path, first.model_copy(update={"experiment_id": "broken"}))
        path.write_text(path.read_text().replace("broken", "other"))
        wait_for(lambda: client.get("/ready").json()["warnings"])
        assert arms() == {"champion", "challenger"}
    assert {row["deployment_id"] for row in exposures()} == {
        first.deployment_id,
        second.deployment_id,
    }


class LostRoutes:
    """A store that is away until it is said to be back."""

    away = True

    def __init__(self, _url):
        self.rows = {}

    def put(self, _kind, deployment_id, _experiment_id, _content):
        self.answer()
        self.rows[deployment_id] = None

    def now(self, deployment_id):
        self.answer()
        return self.rows[deployment_id]

    def answer(self):
        if self.away:
            raise ExperimentError("cannot read the routes of the store: it is away")

    def close(self):
        pass


def test_what_was_known_holds_while_the_store_is_away(deployment, monkeypatch):
    monkeypatch.setattr("serving.gateway.route_watch.Routes", LostRoutes)
    monkeypatch.setattr("serving.gateway.route_watch._FIRST_TRIES_S", (0.0, 0.0))
    watch = RouteWatch(ServingSettings(route_poll_s=0.01), GatewayMetrics())
    routing, this = Routing(), deployment.deployment_id

    async def story() -> None:
        monkeypatch.setattr(LostRoutes, "away", True)
        await watch.follow("sentiment", deployment, routing)
        assert this in watch.reasons(this)[0]
        assert "away" in watch.warnings()[0]
        running = asyncio.create_task(watch.run())
        monkeypatch.setattr(LostRoutes, "away", False)
        while watch.reasons(this):
            await asyncio.sleep(0.01)
        assert watch.warnings() == []
        routing.force(this, "champion")
        monkeypatch.setattr(LostRoutes, "away", True)
        while not watch.warnings():
            await asyncio.sleep(0.01)
        assert routing.forced(this) == "champion"
        assert watch.reasons(this) == []
        running.cancel()
        await watch.close()

    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_route_to_an_arm_that_is_not_there_is_a_warning(
    start_embedding, deployment, routes, tmp_path
):
    with start_embedding(serve={"deployment": deployment}, route_poll_s=0.05) as client:
        store = sqlite3.connect(tmp_path / "store.db")
        store.execute(
            "INSERT INTO routes VALUES (1, ?, 'nobody', 'sql', 'by hand', 1)",
            (deployment.deployment_id,),
        )
        store.commit()
        store.close()
        wait_for(lambda: client.get("/ready").json()["warnings"])
        assert "arm='nobody'" in client.get("/ready").json()["warnings"][0]
        assert arms_of(client) == {"champion", "challenger"}
        turn(routes, deployment.deployment_id, "champion")
        wait_for(lambda: not client.get("/ready").json()["warnings"])
        assert arms_of(client) == {"champion"}


def test_a_deployment_answers_nobody_before_its_route_is_known(
    start_embedding, deployment, monkeypatch, assert_error
):
    monkeypatch.setattr("serving.gateway.route_watch.Routes", LostRoutes)
    monkeypatch.setattr(LostRoutes, "away", True)
    with start_embedding(serve={"deployment": deployment}, route_poll_s=0.05) as client:
        body = {"reviews": [{"text": "맛있어요"}]}
        assert client.get("/ready").status_code == 503
        assert_error(client.post("/v1/analyze", json=body), 503, "not_ready")
        monkeypatch.setattr(LostRoutes, "away", False)
        wait_for(lambda: client.get("/ready").status_code == 200)
        assert client.post("/v1/analyze", json=body).status_code == 200
        assert orjson.loads(client.get("/ready").content)["warnings"] == []
