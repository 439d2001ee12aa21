"""Everybody to one arm: an experiment's event where one runs, a route where none does."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from data.errors import ExperimentError
from serving.experiments.catalogue import Catalogue, Served
from serving.experiments.lifecycle import Event
from serving.experiments.routes import Routes
from serving.experiments.specification import specification_of
from serving.experiments.turning import is_at_work, turn_traffic, turner

PLAIN, PHASE = "a" * 32, "b" * 32
ARMS: dict[str, Any] = {"arms": [{"name": "float"}, {"name": "int8"}]}
WHY = {"by": "비교", "reason": "구간이 그렇다고 한다"}


@pytest.fixture
def catalogue(url: str, agreed: Callable[..., dict[str, Any]]) -> Iterator[Catalogue]:
    """An experiment whose comparison is served; beside it a deployment without one."""
    with closing(Routes(url)) as routes:
        routes.put("sentiment", PLAIN, "e", ARMS)
    with closing(Catalogue(url)) as opened:
        ab = [{"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}}]
        said = specification_of(agreed({"phases": ab}), where="a test")
        opened.put(said)
        served = Served("sentiment", PHASE, ARMS | {"phase": {"experiment": said.name}})
        opened.record(said.name, Event(action="start", by="t", reason="t"), serves=served)
        yield opened


def arm_of(url: str, deployment_id: str) -> str | None:
    with closing(Routes(url)) as routes:
        route = routes.now(deployment_id)
        return route and route.arm


def test_without_an_experiment_the_route_is_turned_once(catalogue: Catalogue, url: str) -> None:
    turn = turner(url)
    for _ in range(2):
        turn(PLAIN, "int8", **WHY)
    assert arm_of(url, PLAIN) == "int8"
    with closing(Routes(url)) as routes:
        assert len(routes.all()) == 1
    turn(PLAIN, None, **WHY)
    assert arm_of(url, PLAIN) is None


@pytest.mark.parametrize(("arm", "state"), [("int8", "promoted"), ("float", "rolled_back")])
def test_an_experiment_that_runs_ends_by_an_event_of_its_own(
    catalogue: Catalogue, url: str, arm: str, state: str
) -> None:
    for _ in range(2):
        turn_traffic(url, PHASE, arm, **WHY)
    entry = catalogue.get("sentiment-int8")
    assert entry.lifecycle.state == state
    assert [each.event.action for each in entry.history] == [
        "start",
        "promote" if arm == "int8" else "roll_back",
    ]
    assert entry.history[-1].event.by == "비교"
    assert arm_of(url, PHASE) == arm


def test_what_was_promoted_may_be_turned_back(catalogue: Catalogue, url: str) -> None:
    turn_traffic(url, PHASE, "int8", **WHY)
    turn_traffic(url, PHASE, "float", **WHY)
    assert arm_of(url, PHASE) == "float"
    assert catalogue.get("sentiment-int8").lifecycle.state == "promoted"


def test_a_phase_that_is_over_or_paused_turns_nobody(catalogue: Catalogue, url: str) -> None:
    later = Served("sentiment", "c" * 32, ARMS | {"phase": {"experiment": "sentiment-int8"}})
    again = Event(action="reallocate", by="t", reason="t", allocation={"float": 0.2, "int8": 0.8})
    catalogue.record("sentiment-int8", again, serves=later)
    with pytest.raises(ExperimentError, match="another phase was opened meanwhile"):
        turn_traffic(url, PHASE, "int8", **WHY)
    catalogue.record("sentiment-int8", Event(action="pause", by="t", reason="t"))
    with pytest.raises(ExperimentError, match="it is 'paused'"):
        turn_traffic(url, "c" * 32, "int8", **WHY)
    assert arm_of(url, PHASE) is None


def test_what_nobody_serves_is_told(catalogue: Catalogue, url: str) -> None:
    assert is_at_work(url, PLAIN)
    assert not is_at_work(url, "d" * 32)
    with pytest.raises(ExperimentError, match="never put to work"):
        turn_traffic(url, "d" * 32, "int8", **WHY)
