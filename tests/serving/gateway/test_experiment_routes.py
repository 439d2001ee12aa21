"""The API of experiments as callers meet it: what is read, who may write, and what is refused."""

import runpy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from serving.experiments.analysis import report_of
from serving.experiments.catalogue import Catalogue
from serving.experiments.routes import Routes
from serving.experiments.store import ExperimentStore

TOKEN = "open-the-kitchen-door"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
ROLL_BACK = {"action": "roll_back", "reason": "오답 신고가 늘었다", "after": 2}


@pytest.fixture(scope="session")
def made() -> Any:
    """What tests/fake_experiments.py holds."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "fake_experiments.py")))


@pytest.fixture(autouse=True)
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry that is not there, so that the one of this machine is left alone."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    return tmp_path / "none.db"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def catalogue(url: str, made: Any) -> Iterator[Catalogue]:
    opened = Catalogue(url, now_us=made.Clock())
    yield opened
    opened.close()


@pytest.fixture
def begun(catalogue: Catalogue, made: Any) -> Catalogue:
    """sentiment-int8 is in its A/B phase, as the second of its events."""
    agreed = made.specification("sentiment-int8")
    made.begin(catalogue, agreed, ("start", "카나리"), ("advance", "지켜졌다"))
    return catalogue


@pytest.fixture
def client(start_language: Any) -> Iterator[httpx.Client]:
    with start_language(admin_token=TOKEN) as running:
        yield running


def act(client: httpx.Client, name: str = "sentiment-int8", **said: Any) -> httpx.Response:
    return client.post(f"/v1/experiments/{name}/events", json=ROLL_BACK | said, headers=ADMIN)


def test_a_store_without_experiments_lists_none(client: httpx.Client) -> None:
    assert client.get("/v1/experiments").json() == {"experiments": []}
    assert client.get("/v1/routes").json() == {"routes": []}


def test_the_list_and_one_experiment_tell_what_stands_where(
    client: httpx.Client, begun: Catalogue, url: str, made: Any
) -> None:
    store = ExperimentStore(url)
    made.answer(store, "sentiment-int8", 2, 400, right={"float": 0.8, "int8": 0.8})
    store.close()
    made.begin(begun, made.specification("a-draft"))

    draft, running = client.get("/v1/experiments").json()["experiments"]
    assert (draft["name"], draft["state"], draft["phase"]) == ("a-draft", "draft", None)
    assert draft["last_event"] is None
    assert [arm["share"] for arm in draft["arms"]] == [None, None]
    assert running["state"] == "running"
    assert running["phase"]["kind"] == "ab"
    assert running["phase"]["shares"] == {"float": 0.5, "int8": 0.5}
    assert running["last_event"]["action"] == "advance"
    assert running["answered_by"] is None
    control, other = running["arms"]
    assert control["control"]
    assert not other["control"]
    assert other["resolved"] == {"name": "matjip-sentiment", "version": "7"}
    assert control["units"] + other["units"] == 400
    assert control["answers"] + other["answers"] + control["failed"] + other["failed"] == 400
    assert control["failed"] + other["failed"] > 0

    one = client.get("/v1/experiments/sentiment-int8").json()
    assert {key: one[key] for key in running} == running
    assert one["specification"] == made.specification("sentiment-int8").model_dump(mode="json")
    assert [each["action"] for each in one["history"]] == ["start", "advance"]
    assert [each["kind"] for each in one["phases"]] == ["canary", "ab"]
    assert one["phases"][1]["opened_at"] == one["history"][1]["at"]
    assert one["may"] == ["reallocate", "pause", "promote", "roll_back", "abandon"]
    assert one["writable"]
    assert "salt" not in client.get("/v1/experiments/sentiment-int8").text


@pytest.mark.parametrize(
    "name", ["nope", "No-Such", "a" * 400, "%00", "..%2f..", "한식", "'; DROP--"]
)
def test_an_unknown_name_is_a_404(
    client: httpx.Client, begun: Catalogue, name: str, assert_error: Any
) -> None:
    for path in (f"/v1/experiments/{name}", f"/v1/experiments/{name}/report"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in {"unknown_experiment", "not_found"}
    assert_error(client.get("/v1/routes?experiment=nope"), 404, "unknown_experiment", "name")
    assert_error(act(client, "nope"), 404, "unknown_experiment", "name")


def test_a_roll_back_turns_everybody_to_the_control(
    client: httpx.Client, begun: Catalogue, url: str
) -> None:
    done = act(client, by="당번")
    assert done.status_code == 200
    assert done.json()["state"] == "rolled_back"
    assert done.json()["may"] == []
    assert done.json()["last_event"]["by"] == "당번"
    serving = begun.get("sentiment-int8").lifecycle.current
    assert serving is not None
    routes = Routes(url)
    route = routes.now(str(serving.deployment_id))
    routes.close()
    assert route is not None
    assert (route.arm, route.by, route.reason) == ("float", "당번", "오답 신고가 늘었다")
    told = client.get("/v1/routes?experiment=sentiment-int8").json()["routes"]
    assert [(each["arm"], each["reason"]) for each in told] == [("float", "오답 신고가 늘었다")]
    assert client.get("/v1/experiments/sentiment-int8").json()["answered_by"] == "float"


def test_a_promotion_turns_everybody_and_says_what_became_of_the_alias(
    client: httpx.Client, begun: Catalogue
) -> None:
    done = act(client, action="promote", arm="int8").json()
    assert done["state"] == "promoted"
    assert "the alias did not follow" in done["alias"]
    assert done["is_champion"] is False
    assert client.get("/v1/experiments/sentiment-int8").json()["answered_by"] == "int8"


def test_phases_are_opened_only_where_they_would_be_served(
    client: httpx.Client, catalogue: Catalogue, made: Any, assert_error: Any
) -> None:
    made.begin(catalogue, made.specification("sentiment-int8"))
    said = assert_error(act(client, action="start", after=0), 501, "not_live")
    assert "MATJIP_LIVE" in said
    assert not client.get("/v1/experiments/sentiment-int8").json()["opens_phases"]


def test_a_pause_and_its_resumption(client: httpx.Client, begun: Catalogue) -> None:
    assert act(client, action="pause").json()["state"] == "paused"
    assert act(client, action="resume", after=3).json()["state"] == "running"
    arms = [each["arm"] for each in client.get("/v1/routes").json()["routes"]]
    assert arms == [None, "float"]


def test_writes_need_the_token(client: httpx.Client, begun: Catalogue, assert_error: Any) -> None:
    path = "/v1/experiments/sentiment-int8/events"
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        refused = client.post(path, json=ROLL_BACK, headers=wrong)
        assert_error(refused, 401, "wrong_token", "Authorization")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        agreed = client.post("/v1/experiments", json={}, headers=wrong)
        assert_error(agreed, 401, "wrong_token", "Authorization")
    strange = client.post(path, json=ROLL_BACK, headers={"Authorization": "Bearer é토큰".encode()})
    assert_error(strange, 401, "wrong_token", "Authorization")
    assert begun.get("sentiment-int8").lifecycle.state == "running"
    assert TOKEN not in strange.text


def test_without_a_token_set_nothing_is_written(
    start_language: Any, begun: Catalogue, assert_error: Any
) -> None:
    with start_language() as client:
        refused = client.post(
            "/v1/experiments/sentiment-int8/events", json=ROLL_BACK, headers=ADMIN
        )
        said = assert_error(refused, 403, "writes_disabled")
        assert "MATJIP_ADMIN_TOKEN" in said
        assert not client.get("/v1/experiments/sentiment-int8").json()["writable"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_that_a_form_could_send_is_refused(
    client: httpx.Client, begun: Catalogue, kind: str, assert_error: Any
) -> None:
    refused = client.post(
        "/v1/experiments/sentiment-int8/events",
        content=b'{"action": "roll_back"}',
        headers=ADMIN | {"Content-Type": kind},
    )
    assert_error(refused, 415, "not_json", "Content-Type")


def test_no_answer_lets_another_site_in(client: httpx.Client) -> None:
    answer = client.options(
        "/v1/experiments",
        headers={"Origin": "https://example.com", "Access-Control-Request-Method": "POST"},
    )
    assert answer.status_code == 405
    told = client.get("/v1/experiments", headers={"Origin": "https://example.com"})
    assert not [name for name in told.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"action": "rollback"}, "action"),
        ({"reason": "  "}, "reason"),
        ({"reason": "맛" * 2_001}, "reason"),
        ({"after": -1}, "after"),
        ({"after": "2"}, "after"),
        ({"after": None}, "after"),
        ({"arm": "int8"}, None),
        ({"action": "promote"}, None),
        ({"action": "promote", "arm": "Int 8"}, "arm"),
        ({"action": "pause", "allocation": {"float": 1.0}}, None),
        ({"by": ""}, "by"),
        ({"force": True}, "force"),
    ],
)
def test_an_event_that_is_none_is_a_422(
    client: httpx.Client, begun: Catalogue, said: dict[str, Any], field: str, assert_error: Any
) -> None:
    assert_error(act(client, **said), 422, "invalid_event", field)
    assert begun.get("sentiment-int8").lifecycle.events == 2


def test_what_is_not_allowed_now_is_a_409(
    client: httpx.Client, begun: Catalogue, assert_error: Any
) -> None:
    said = assert_error(act(client, action="resume"), 409, "not_allowed_now")
    assert "'running'" in said
    assert "'int9'" in assert_error(
        act(client, action="promote", arm="int9"), 409, "not_allowed_now"
    )
    assert_error(act(client, action="promote", arm="float"), 409, "not_allowed_now")
    assert_error(act(client, after=1), 409, "acted_meanwhile", "after")


def test_of_many_who_act_at_once_one_is_heard(client: httpx.Client, begun: Catalogue) -> None:
    with ThreadPoolExecutor(8) as people:
        answers = list(people.map(lambda _: act(client).status_code, range(8)))
    assert sorted(answers) == [200] + [409] * 7
    assert begun.get("sentiment-int8").lifecycle.events == 3


def test_an_experiment_is_agreed_once_and_changed_until_it_begins(
    client: httpx.Client, catalogue: Catalogue, made: Any, assert_error: Any
) -> None:
    agreed = made.specification("aspects").model_dump(mode="json")

    def put(**changes: Any) -> httpx.Response:
        return client.post("/v1/experiments", json=agreed | changes, headers=ADMIN)

    assert put().json()["version"] == put().json()["version"] == 1
    assert put(owner="검색").json() == {
        "name": "aspects",
        "version": 2,
        "digest": catalogue.get("aspects").lifecycle.specification.digest,
    }
    made.begin(catalogue, catalogue.get("aspects").lifecycle.specification, ("start", "시작"))
    assert_error(put(owner="다른 팀"), 409, "already_begun")


def test_everything_that_is_wrong_with_a_specification_is_said_at_once(
    client: httpx.Client, made: Any, assert_error: Any
) -> None:
    values = made.specification("aspects").model_dump(mode="json")
    values["unit"] = "table"
    values["arms"][1]["model"] = "int8"
    values["phases"][0]["allocation"] = {"float": 0.9, "int8": 0.05}
    refused = client.post("/v1/experiments", json=values, headers=ADMIN)
    said = assert_error(refused, 422, "invalid_specification")
    for part in ("unit", "arms.1.model", "phases.0.canary", "0.95"):
        assert part in said


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"null", 422, "invalid_specification"),
        (b"[]", 422, "invalid_specification"),
        ('"맛집"'.encode(), 422, "invalid_specification"),
        (b"{", 400, "invalid_json"),
        (b"", 400, "invalid_json"),
        ("맛집".encode("euc-kr"), 400, "invalid_utf8"),
        (b'{"name": "' + b"a" * 2_000_000 + b'"}', 413, "body_too_large"),
    ],
)
def test_a_body_that_is_none_is_refused(
    client: httpx.Client, body: bytes, status: int, code: str, assert_error: Any
) -> None:
    for path in ("/v1/experiments", "/v1/experiments/none/events"):
        expected = "invalid_event" if status == 422 and path.endswith("events") else code
        headers = ADMIN | {"Content-Type": "application/json"}
        assert_error(client.post(path, content=body, headers=headers), status, expected)


def test_a_store_that_is_gone_is_a_503(
    client: httpx.Client, begun: Catalogue, tmp_path: Path, assert_error: Any
) -> None:
    assert client.get("/v1/experiments").status_code == 200
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE experiment_events RENAME TO gone")
    assert_error(client.get("/v1/experiments"), 503, "store_failed")
    assert_error(act(client), 503, "store_failed")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE gone RENAME TO experiment_events")
    engine.dispose()
    assert client.get("/v1/experiments").status_code == 200


def test_a_report_is_json_or_a_page(
    client: httpx.Client, begun: Catalogue, url: str, made: Any
) -> None:
    store = ExperimentStore(url)
    made.answer(store, "sentiment-int8", 2, 400, right={"float": 0.8, "int8": 0.8})
    store.close()
    path = "/v1/experiments/sentiment-int8/report"
    report = client.get(path)
    assert report.headers["Content-Type"] == "application/json"
    assert report.json()["experiment"] == "sentiment-int8"
    assert {row["metric"] for row in report.json()["metrics"]} >= {
        "sentiment_accuracy",
        "error_rate",
    }
    for language in ("en", "ko"):
        page = client.get(f"{path}?lang={language}", headers={"Accept": "text/html, */*;q=0.8"})
        assert page.headers["Content-Type"].startswith("text/html")
        assert "script-src" not in page.headers["Content-Security-Policy"]
        assert f'lang="{language}"' in page.text


def test_neither_a_roll_back_nor_a_list_waits_for_a_report(
    client: httpx.Client, begun: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_to_read, go_on = threading.Event(), threading.Event()

    def slow(url: str, name: str) -> Any:
        begun_to_read.set()
        go_on.wait(60)
        return report_of(url, name)

    monkeypatch.setattr("serving.experiments.analysis.report_of", slow)
    path = f"{client.base_url}/v1/experiments/sentiment-int8/report"
    with ThreadPoolExecutor(48) as readers:
        first = readers.submit(httpx.get, path, timeout=60)
        assert begun_to_read.wait(30)
        assert act(client).json()["state"] == "rolled_back"
        assert client.get("/v1/experiments").status_code == 200
        others = [readers.submit(httpx.get, path, timeout=60) for _ in range(47)]
        refused = [each.result() for _, each in zip(range(16), as_completed(others), strict=False)]
        go_on.set()
        assert first.result().status_code == 200
    assert {answer.status_code for answer in refused} == {429}
    assert refused[0].json()["error"]["code"] == "too_many_requests"
    assert refused[0].headers["Retry-After"] == "1"


def test_a_report_on_nothing_is_refused_and_not_kept(
    client: httpx.Client, catalogue: Catalogue, made: Any, assert_error: Any
) -> None:
    agreed = made.specification("sentiment-int8")
    made.begin(catalogue, agreed)
    path = "/v1/experiments/sentiment-int8/report"
    assert "never began" in assert_error(client.get(path), 409, "no_report")
    assert_error(client.get(f"{path}?lang=jp"), 422, "invalid_request", "lang")
    made.begin(catalogue, agreed, ("start", "카나리"))
    assert client.get(path).json()["decision"] == "invalid"


def test_the_ledger_asks_for_a_model_and_makes_no_registry(
    client: httpx.Client, missing: Path, assert_error: Any
) -> None:
    assert_error(client.get("/v1/ledger"), 422, "invalid_request", "model")
    said = assert_error(client.get("/v1/ledger?model=matjip-sentiment"), 404, "no_registry")
    assert "MLFLOW_TRACKING_URI" in said
    assert not missing.exists()


def test_the_document_names_the_routes(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {path for path in paths if "experiments" in path} == {
        "/v1/experiments",
        "/v1/experiments/{name}",
        "/v1/experiments/{name}/events",
        "/v1/experiments/{name}/report",
    }
    body = paths["/v1/experiments"]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        taken = client.post("/v1/experiments", json=example["value"], headers=ADMIN)
        assert taken.status_code == 200, taken.text
    for path in ("/v1/experiments", "/v1/experiments/{name}/events"):
        assert paths[path]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in paths["/v1/experiments"]["get"]
    assert "401" in paths["/v1/experiments/{name}/events"]["post"]["responses"]
