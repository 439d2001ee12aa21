"""One history of every experiment, whoever acts, however often, and whatever the clock says."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from data.errors import ExperimentError
from data.manifest import canonical_digest
from serving.experiments.catalogue import Catalogue, Entry, Served
from serving.experiments.lifecycle import Action, Event
from serving.experiments.routes import Routes
from serving.experiments.specification import ExperimentSpecification
from serving.experiments.tables import experiment_events, experiment_versions

Agreed = Callable[..., dict[str, Any]]


def of(values: dict[str, Any]) -> ExperimentSpecification:
    return ExperimentSpecification.model_validate(values)


def event(action: Action, by: str = "tester") -> Event:
    return Event(action=action, by=by, reason="a test")


@pytest.fixture
def url(store_url: str) -> str:
    return store_url


@pytest.fixture
def catalogue(url: str) -> Iterator[Catalogue]:
    opened = Catalogue(url)
    yield opened
    opened.close()


def test_what_was_agreed_and_done_outlives_the_process(
    catalogue: Catalogue, url: str, agreed: Agreed
) -> None:
    catalogue.put(of(agreed()))
    for action in ("start", "advance", "pause"):
        entry = catalogue.record("sentiment-int8", event(action))
    other = Catalogue(url)

    assert other.get("sentiment-int8") == entry
    assert [each.event.action for each in entry.history] == ["start", "advance", "pause"]
    assert [each.number for each in entry.history] == [1, 2, 3]
    assert entry.lifecycle.state == "paused"
    assert other.list() == [entry]
    other.close()


def test_a_draft_may_change_and_keeps_its_versions(catalogue: Catalogue, agreed: Agreed) -> None:
    first = catalogue.put(of(agreed()))
    again = catalogue.put(of(agreed()))
    second = catalogue.put(of(agreed({"owner": "search"})))

    assert (first.version, again.version, second.version) == (1, 1, 2)
    assert catalogue.get("sentiment-int8").lifecycle.specification.owner == "search"


def test_what_began_never_changes(catalogue: Catalogue, agreed: Agreed) -> None:
    catalogue.put(of(agreed()))
    begun = catalogue.record("sentiment-int8", event("start"))

    with pytest.raises(ExperimentError, match="began with version 1 and cannot change"):
        catalogue.put(of(agreed({"metrics.primary.margin": 0.5})))

    assert catalogue.put(of(agreed())) == begun
    assert catalogue.get("sentiment-int8") == begun


def test_what_is_not_allowed_leaves_no_trace(catalogue: Catalogue, agreed: Agreed) -> None:
    drafted = catalogue.put(of(agreed()))
    with pytest.raises(ExperimentError, match=r"cannot 'advance'.*it is 'draft'"):
        catalogue.record("sentiment-int8", event("advance"))
    assert catalogue.get("sentiment-int8") == drafted


def test_of_many_who_act_at_once_one_gets_through(
    catalogue: Catalogue, url: str, agreed: Agreed
) -> None:
    catalogue.put(of(agreed()))
    catalogue.record("sentiment-int8", event("start"))

    def act(number: int) -> Entry | ExperimentError:
        mine = Catalogue(url)
        try:
            return mine.record("sentiment-int8", event("pause", by=f"actor-{number}"), after=1)
        except ExperimentError as error:
            return error
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(act, range(16)))

    assert sum(isinstance(each, Entry) for each in done) == 1
    assert len(catalogue.get("sentiment-int8").history) == 2


def test_who_saw_an_older_state_is_told(catalogue: Catalogue, agreed: Agreed) -> None:
    catalogue.put(of(agreed()))
    catalogue.record("sentiment-int8", event("start"), after=0)
    with pytest.raises(ExperimentError, match=r"had 0 events .* has 1 now"):
        catalogue.record("sentiment-int8", event("abandon"), after=0)


def test_two_that_run_never_own_the_same_units(catalogue: Catalogue, agreed: Agreed) -> None:
    def put(name: str, start: int, stop: int, layer: str = "sentiment") -> None:
        place = {"name": layer, "start": start, "stop": stop}
        catalogue.put(of(agreed({"name": name, "layer": place})))

    put("one", 0, 5_000)
    put("two", 4_999, 10_000)
    put("three", 5_000, 10_000)
    put("elsewhere", 0, 10_000, layer="search")
    catalogue.record("one", event("start"))
    with pytest.raises(ExperimentError, match=r"'two' would own .*'one', which is 'running'"):
        catalogue.record("two", event("start"))
    catalogue.record("three", event("start"))
    catalogue.record("elsewhere", event("start"))
    for name in ("one", "three"):
        catalogue.record(name, event("roll_back"))
    assert catalogue.record("two", event("start")).lifecycle.state == "running"


def test_of_two_that_begin_at_once_in_one_layer_one_does(
    catalogue: Catalogue, url: str, agreed: Agreed
) -> None:
    place = {"name": "sentiment", "start": 0, "stop": 10_000}
    for number in range(8):
        catalogue.put(of(agreed({"name": f"experiment-{number}", "layer": place})))

    def begin(number: int) -> bool:
        mine = Catalogue(url)
        try:
            mine.record(f"experiment-{number}", event("start"))
        except ExperimentError:
            return False
        else:
            return True
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == 1


def test_a_clock_that_is_set_back_does_not_turn_history_around(url: str, agreed: Agreed) -> None:
    times = iter([5_000_000, 9_000_000, 1_000_000, 7_000_000])
    catalogue = Catalogue(url, now_us=lambda: next(times))
    catalogue.put(of(agreed()))
    for action in ("start", "advance", "advance"):
        entry = catalogue.record("sentiment-int8", event(action))
    assert [each.at_us for each in entry.history] == [9_000_000, 9_000_000, 9_000_000]
    catalogue.close()


def test_a_stranger_is_answered_with_the_names_there_are(
    catalogue: Catalogue, agreed: Agreed
) -> None:
    assert catalogue.list() == []
    catalogue.put(of(agreed()))
    with pytest.raises(ExperimentError, match=r"no experiment 'none' .*\['sentiment-int8'\]"):
        catalogue.get("none")
    with pytest.raises(ExperimentError, match="no experiment 'none'"):
        catalogue.record("none", event("start"))


def test_what_was_changed_behind_its_back_is_noticed(
    catalogue: Catalogue, url: str, agreed: Agreed
) -> None:
    catalogue.put(of(agreed()))
    catalogue.record("sentiment-int8", event("start"))
    with sa.create_engine(url).begin() as connection:
        changed = agreed({"metrics.primary.margin": 0.9})
        connection.execute(experiment_versions.update().values(specification=changed))
    with pytest.raises(ExperimentError, match="changed behind the catalogue"):
        catalogue.get("sentiment-int8")


def test_an_event_that_is_none_is_named(catalogue: Catalogue, url: str, agreed: Agreed) -> None:
    catalogue.put(of(agreed()))
    catalogue.record("sentiment-int8", event("start"))
    with sa.create_engine(url).begin() as connection:
        connection.execute(experiment_events.update().values(event={"action": "delete"}))
    with pytest.raises(ExperimentError, match="has an event in the store that is none"):
        catalogue.get("sentiment-int8")


def test_a_store_that_is_gone_is_named(
    catalogue: Catalogue, url: str, tmp_path: Path, agreed: Agreed
) -> None:
    catalogue.put(of(agreed()))
    with pytest.raises(ExperimentError, match="keeps nothing"):
        Catalogue("sqlite://")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ExperimentError, match=r"cannot open the experiment store .*folder.db"):
        Catalogue(f"sqlite:///{tmp_path}/folder.db")
    (tmp_path / "text.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(ExperimentError, match="file is not a database"):
        Catalogue(f"sqlite:///{tmp_path}/text.db")
    with sa.create_engine(url).begin() as connection:
        experiment_events.drop(connection)
    with pytest.raises(ExperimentError, match="experiment_events"):
        catalogue.get("sentiment-int8")
    with pytest.raises(ExperimentError, match="experiment_events"):
        catalogue.record("sentiment-int8", event("start"))


SERVED = Served("sentiment", "a" * 32, {"arms": [{"name": "float"}, {"name": "int8"}]})


@pytest.mark.parametrize(
    ("actions", "arm"),
    [
        ([], "as dealt"),
        (["pause"], "float"),
        (["pause", "resume"], None),
        (["roll_back"], "float"),
        (["pause", "abandon"], "float"),
    ],
)
def test_what_stops_an_experiment_sends_everybody_to_the_control(
    catalogue: Catalogue, url: str, agreed: Agreed, actions: list[Action], arm: str | None
) -> None:
    name = catalogue.put(of(agreed())).lifecycle.specification.name
    begun = catalogue.record(name, event("start"), serves=SERVED)
    assert begun.lifecycle.current is not None
    assert begun.lifecycle.current.deployment_id == SERVED.deployment_id
    for action in actions:
        catalogue.record(name, event(action))
    routes = Routes(url)
    route = routes.now(SERVED.deployment_id)
    routes.close()
    assert (route.arm if route else "as dealt") == arm


def test_a_promotion_sends_everybody_to_the_winner(
    catalogue: Catalogue, url: str, agreed: Agreed
) -> None:
    name = catalogue.put(of(agreed())).lifecycle.specification.name
    catalogue.record(name, event("start"))
    catalogue.record(name, event("advance"))
    catalogue.record(name, event("advance"), serves=SERVED)
    with pytest.raises(ExperimentError, match="is the control"):
        catalogue.record(name, Event(action="promote", arm="float", by="출시 담당", reason="…"))
    catalogue.record(name, Event(action="promote", arm="int8", by="출시 담당", reason="더 낫다 🍜"))
    routes = Routes(url)
    route = routes.now(SERVED.deployment_id)
    routes.close()
    assert route is not None
    assert (route.arm, route.by, route.reason) == ("int8", "출시 담당", "더 낫다 🍜")


def test_a_refused_event_turns_nobody(catalogue: Catalogue, url: str, agreed: Agreed) -> None:
    name = catalogue.put(of(agreed())).lifecycle.specification.name
    catalogue.record(name, event("start"), serves=SERVED)
    with pytest.raises(ExperimentError, match="somebody acted meanwhile"):
        catalogue.record(name, event("roll_back"), after=0)
    routes = Routes(url)
    assert routes.all() == []
    routes.close()


def test_all_experiments_share_a_salt_that_is_made_once(catalogue: Catalogue, url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        salts = set(pool.map(lambda _: catalogue.salt(), range(8)))
    other = Catalogue(url)
    assert salts == {other.salt()}
    assert len(other.salt()) == 32
    other.close()


def test_what_an_earlier_matjip_has_stored_stays_readable(
    catalogue: Catalogue, url: str, agreed: Agreed
) -> None:
    catalogue.put(of(agreed()))
    with sa.create_engine(url).begin() as connection:
        stored = connection.execute(sa.select(experiment_versions.c.specification)).scalar_one()
        del stored["layer"], stored["stopping"]["attribution_days"]  # as if it knew neither
        connection.execute(
            experiment_versions.update().values(
                specification=stored, digest=canonical_digest(stored)
            )
        )
    assert catalogue.get("sentiment-int8").lifecycle.specification == of(agreed())
    catalogue.record("sentiment-int8", event("start"))
    assert catalogue.put(of(agreed())).version == 1
