"""Who answers everybody: one history, whoever turns, and only what was put to work."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from data.errors import ExperimentError
from serving.experiments.routes import Routes

FIRST, SECOND = "a" * 32, "b" * 32
CONTENT = {"arms": [{"name": "float"}, {"name": "int8"}], "설명": "반반 🍜"}


@pytest.fixture
def url(store_url):
    """Of SQLite and, among the service tests, PostgreSQL."""
    return store_url


@pytest.fixture
def routes(url):
    opened = Routes(url)
    opened.put("sentiment", FIRST, "e", CONTENT)
    yield opened
    opened.close()


def turned(routes, arm, deployment_id=FIRST):
    return routes.turn(deployment_id, arm, by="당직자", reason="오류가 늘었다")


def test_the_last_route_counts_and_all_are_kept(routes):
    assert routes.now(FIRST) is None
    first = turned(routes, "float")
    assert routes.now(FIRST) == first
    assert (first.number, first.arm, first.by, first.reason) == (
        1,
        "float",
        "당직자",
        "오류가 늘었다",
    )
    again = turned(routes, None)
    assert routes.now(FIRST) == again
    assert [route.arm for route in routes.all()] == [None, "float"]


def test_turning_to_where_everybody_is_changes_nothing(routes):
    assert turned(routes, None).number == 0
    assert routes.all() == []
    assert turned(routes, "int8") == turned(routes, "int8")
    assert len(routes.all()) == 1


def test_deployments_have_routes_of_their_own(routes):
    routes.put("language", SECOND, "e2", CONTENT)
    turned(routes, "float")
    turned(routes, "int8", SECOND)
    assert [routes.now(each).arm for each in (FIRST, SECOND)] == ["float", "int8"]


@pytest.mark.parametrize(
    ("deployment_id", "arm", "message"),
    [
        (SECOND, "float", "was never put to work"),
        (FIRST, "fp4", r"arm='fp4' is none .*\['float', 'int8'\]"),
        ("'; DROP TABLE routes; --", "float", "was never put to work"),
    ],
)
def test_what_is_not_there_is_refused(routes, deployment_id, arm, message):
    with pytest.raises(ExperimentError, match=message):
        turned(routes, arm, deployment_id)
    assert routes.all() == []


def test_a_deployment_is_put_to_work_once(routes):
    found = routes.get(FIRST)
    routes.put("sentiment", FIRST, "e", CONTENT | {"other": 1})
    assert routes.get(FIRST) == found
    assert found.content == CONTENT
    assert routes.get(SECOND) is None
    routes.put("sentiment", SECOND, "e", CONTENT)
    assert routes.latest("sentiment").deployment_id == SECOND
    assert routes.latest("language") is None


def test_a_clock_that_is_set_back_does_not_turn_history_around(url):
    times = iter([900, 500, 100, 50])
    routes = Routes(url, clock=lambda: next(times))
    routes.put("sentiment", FIRST, "e", CONTENT)
    routes.put("sentiment", SECOND, "e", CONTENT)
    assert routes.latest("sentiment").deployment_id == SECOND
    first, second = turned(routes, "float"), turned(routes, "int8")
    assert first.at_us <= second.at_us
    assert routes.now(FIRST).arm == "int8"
    routes.close()


def test_many_who_turn_at_once_leave_one_history(routes, url):
    def act(number):
        mine = Routes(url)
        try:
            return turned(mine, ["float", "int8", None][number % 3]).number
        finally:
            mine.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(act, range(24)))
    history = routes.all()
    assert [route.number for route in history] == list(range(len(history), 0, -1))
    arms = [None, *(route.arm for route in reversed(history))]
    assert all(before != after for before, after in pairwise(arms))


def test_a_reason_of_any_length_is_cut_not_refused(routes):
    route = routes.turn(FIRST, "int8", by="가드레일", reason="느리다 " * 25_000)
    assert len(route.reason) == 2_000
    assert routes.now(FIRST) == route


def test_a_store_that_is_gone_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="cannot open the experiment store"):
        Routes(f"sqlite:///{tmp_path / 'file' / 'store.db'}")
