"""make rollback: everybody back first, then the alias; by itself, and as a command."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.errors import ExperimentError, RegistryError
from serving.deployment import Arm, Deployment
from serving.experiments.routes import Routes
from serving.registry.aliases import move_alias, read_ledger
from serving.registry.evidence import Evidence
from serving.registry.journal import journals
from serving.registry.rollback import Wish, roll_back
from serving.registry.transition import Tools, carry_out
from serving.registry.versions import resolve

NAME = "sentiment"
WISH = Wish(model=NAME, by="운영", reason="오답이 늘었다")


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def store(compared, tmp_path):
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def routes(store):
    opened = Routes(store)
    yield opened
    opened.close()


@pytest.fixture
def deployed(compared, routes):
    """Both versions at work; the deployment's id."""
    deployment = Deployment(
        experiment_id="sentiment-2-vs-1",
        salt="0123456789abcdef",
        arms=tuple(
            Arm(
                name=name,
                model_name=NAME,
                version=version,
                folder=Path("models") / version,
                manifest_digest=version * 64,
                evidence_id=f"e{version}",
                share=0.5,
            )
            for name, version in (("champion", "1"), ("challenger", "2"))
        ),
        created_at=datetime.now(UTC),
    )
    content = deployment.model_dump(mode="json")
    routes.put("sentiment", deployment.deployment_id, deployment.experiment_id, content)
    return deployment.deployment_id


@pytest.fixture
def promoted(compared, plan, routes, deployed, tmp_path):
    """Version 2 is champion and answers everybody."""
    tools = Tools(models=tmp_path / "fetched", turn=routes.turn)
    carry_out(compared, plan("promote", deployment_id=deployed), tools)
    return compared


@pytest.fixture
def back(store):
    def call(registry, wish=WISH, **changes):
        said = []
        arguments = {"tracking_uri": registry.uri, "store_url": store, "say": said.append}
        return roll_back(wish, **(arguments | changes)), said

    return call


def named(registry):
    return resolve(registry, NAME, "champion").version


def test_everybody_and_the_alias_are_back(promoted, routes, deployed, back):
    done, said = back(promoted)
    assert (done.journal.end, named(promoted)) == ("finished", "1")
    assert 0 <= done.turned_s <= done.total_s
    route = routes.now(deployed)
    assert (route.arm, route.by, route.reason) == ("champion", "운영", "오답이 늘었다")
    assert said == ["everybody is sent to 'champion', version '1'; now the alias"]
    last = read_ledger(promoted, NAME)[-1]
    assert (last.evidence.kind, last.evidence.by) == ("restore", "운영")
    assert (last.from_version, last.to_version, last.phase) == ("2", "1", "moved")


def test_the_traffic_turns_before_the_registry_is_asked(
    promoted, routes, deployed, back, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # the state of a registry that is a server lies here
    with pytest.raises(RegistryError):
        back(promoted, tracking_uri="http://127.0.0.1:9", say=lambda _line: None)
    assert routes.now(deployed).arm == "champion"
    assert named(promoted) == "2"


def test_a_second_call_goes_no_further_back_than_there_were_champions(promoted, back):
    back(promoted)
    with pytest.raises(RegistryError, match="had no champion before version '1'"):
        back(promoted)
    assert named(promoted) == "1"


@pytest.mark.parametrize("kill_at", ["after traffic", "before champion", "champion: champion set"])
def test_a_rollback_that_was_killed_is_completed_by_the_next(promoted, back, kill_at):
    def checkpoint(instant):
        if instant == kill_at:
            raise Killed

    with pytest.raises(Killed):
        back(promoted, checkpoint=checkpoint)
    done, _ = back(promoted)
    assert (done.journal.end, named(promoted)) == ("finished", "1")
    assert [journal.plan.kind for journal in journals(promoted.state)] == ["promote", "restore"]


def test_without_a_store_the_alias_alone_goes_back(promoted, back, tmp_path):
    done, said = back(promoted, store_url=f"sqlite:///{tmp_path}/none.db")
    assert (done.turned_s, named(promoted), said) == (None, "1", [])
    assert not (tmp_path / "none.db").exists()


def test_a_store_that_is_none_is_refused(promoted, back):
    with pytest.raises(ExperimentError, match="keeps nothing"):
        back(promoted, store_url="sqlite://")
    assert named(promoted) == "2"


def test_a_version_can_be_named(promoted, back, routes, deployed):
    back(promoted, Wish(model=NAME, by="운영", reason="되돌린다", to="1"))
    assert (named(promoted), routes.now(deployed).arm) == ("1", "champion")


def test_a_version_that_never_was_champion_is_refused(promoted, back):
    with pytest.raises(RegistryError, match="version '9' of 'sentiment' was never champion"):
        back(promoted, Wish(model=NAME, by="운영", reason="되돌린다", to="9"))


def test_nobody_is_sent_to_a_challenger_that_was_never_champion(compared, back, routes, deployed):
    with pytest.raises(RegistryError, match=r"was never champion; those that were are \['1'\]"):
        back(compared, Wish(model=NAME, by="운영", reason="되돌린다", to="2"))
    assert routes.now(deployed) is None


def test_one_that_was_given_up_comes_back_by_name(promoted, back, routes, deployed):
    back(promoted)
    back(promoted, Wish(model=NAME, by="운영", reason="오해였다", to="2"))
    assert (named(promoted), routes.now(deployed).arm) == ("2", "challenger")


def test_a_model_without_champions_is_refused(compared, back, register, make_model, tmp_path):
    with pytest.raises(RegistryError, match="'none'"):
        back(compared, Wish(model="none", by="운영", reason="되돌린다"))


def test_before_any_promotion_there_is_nobody_to_go_back_to(compared, deployed, routes, back):
    with pytest.raises(RegistryError, match=r"no champion before version '1'.*roll_back"):
        back(compared)
    assert routes.now(deployed) is None


def test_an_alias_moved_by_hand_stops_the_books_and_not_the_users(
    promoted, back, routes, deployed, register, make_model, tmp_path
):
    make_model(tmp_path / "model-3", weight=3.0)
    register(tmp_path / "model-3", key="v3", evidence_id="e3")
    promoted.client.set_registered_model_alias(NAME, "champion", "3")
    with pytest.raises(RegistryError, match="by hand"):
        back(promoted)
    assert (named(promoted), routes.now(deployed).arm) == ("3", "champion")
    back(promoted, Wish(model=NAME, by="운영", reason="손으로 옮긴 것", to="1"))
    assert named(promoted) == "1"


def test_where_the_deployment_has_no_such_version_the_alias_says_so(promoted, back, routes):
    later = {
        "arms": [{"name": "champion", "model_name": NAME, "version": "2", "evidence_id": "e2"}]
    }
    routes.put("sentiment", "f" * 32, "sentiment-2", later)
    done, said = back(promoted)
    assert (done.turned_s, named(promoted), said) == (None, "1", [])


def test_the_ledgers_copy_tells_whom_to_bring_back_where_no_route_does(
    compared, back, routes, deployed
):
    verdict = Evidence(
        kind="verdict",
        decision="promote",
        evidence_id="e2",
        artifact_digest="comparison",
        reason="더 낫다",
        deployment_id="d1",
        champion_version="1",
        challenger_version="2",
    )
    move_alias(compared, NAME, "champion", "2", evidence=verdict, expected_version="1")
    _, said = back(compared)
    assert said == ["everybody is sent to 'champion', version '1'; now the alias"]
    assert named(compared) == "1"


def test_the_command_prints_what_it_did(promoted, store):
    command = [
        *(sys.executable, "-m", "serving.registry.rollback", "--model", NAME),
        *("--by", "운영", "--reason", "오답이 늘었다"),
    ]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": promoted.uri,
        "MATJIP_STORE_URL": store,
        "COLUMNS": "200",
    }
    first = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    for part in ("everybody is sent to 'champion'", "rolled back by 운영", "version 1, on record"):
        assert part in first.stdout
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "no champion before version '1'" in second.stderr


def test_the_command_wants_to_know_who_and_why(promoted):
    command = [sys.executable, "-m", "serving.registry.rollback", "--by", " ", "--reason", " "]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
