"""What the gateway's API does with a real registry: phases that it opens, winners, the ledger."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.deployment import read_deployment
from serving.experiments.lifecycle import Action, Event
from serving.gateway.alias_ledger import AliasLedger
from serving.gateway.experiments import Experiments
from serving.gateway.limits import Refusal
from serving.gateway.phases import Phases
from serving.registry.connection import Registry


def event(action: Action, **more: Any) -> Event:
    return Event(action=action, by="당번", reason="시험", **more)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "live"


@pytest.fixture
def ledger(versions: Registry) -> AliasLedger:
    return AliasLedger(versions.uri)


@pytest.fixture
def experiments(store_address: str) -> Iterator[Experiments]:
    opened = Experiments(store_address)
    yield opened
    opened.close()


@pytest.fixture
def phases(experiments: Experiments, ledger: AliasLedger, live: Path) -> Phases:
    return Phases(experiments, ledger, live=live, watched=[live / "deployment.json"])


def refused(status: int, code: str, call: Any, *given: Any) -> str:
    with pytest.raises(Refusal) as told:
        call(*given)
    assert (told.value.status_code, told.value.code) == (status, code)
    return str(told.value.detail)


def test_from_a_draft_to_a_champion(
    phases: Phases, experiments: Experiments, ledger: AliasLedger, agree: Any, live: Path
) -> None:
    name = agree()
    for seen, action in enumerate(("start", "advance", "advance")):
        acted = phases.open(name, event(action), seen)
        assert (acted.state, acted.events) == ("running", seen + 1)
    assert read_deployment(live / "deployment.json").phase.kind == "ab"
    shown = experiments.one(name)
    assert [arm.resolved.version for arm in shown.arms if arm.resolved] == ["1", "2"]

    experiments.act(name, event("promote", arm="lighter"), 3)
    assert phases.crown(name)[0]
    told = ledger.read("sentiment")
    assert told.aliases == {"champion": "2"}
    assert (told.entries[0].alias, told.entries[0].from_version) == ("challenger", "2")
    assert [entry.to_version for entry in told.entries if entry.alias == "champion"] == [
        "2",
        "2",
        "1",
        "1",
    ]


def test_a_phase_is_opened_only_where_it_would_be_served(
    experiments: Experiments, ledger: AliasLedger, agree: Any, live: Path, tmp_path: Path
) -> None:
    name = agree()
    for watched in ([], [tmp_path / "run" / "deployment.json"]):
        other = Phases(experiments, ledger, live=live, watched=watched)
        assert "MATJIP_LIVE" in refused(501, "not_live", other.open, name, event("start"), 0)
    assert not live.exists()
    assert experiments.entry(name).lifecycle.state == "draft"


def test_what_is_not_allowed_or_not_there_is_told(phases: Phases, agree: Any) -> None:
    name = agree()
    refused(409, "not_allowed_now", phases.open, name, event("advance"), 0)
    refused(409, "acted_meanwhile", phases.open, name, event("start"), 4)
    refused(404, "unknown_experiment", phases.open, "no-such", event("start"), 0)
    arms = [
        {"name": "now", "model": "models:/sentiment@champion"},
        {"name": "lost", "model": "models:/sentiment/99"},
    ]
    phase = {"kind": "ab", "allocation": {"now": 0.5, "lost": 0.5}}
    lost = agree({"name": "lost", "arms": arms, "phases": [phase]})
    assert "99" in refused(409, "models_refused", phases.open, lost, event("start"), 0)
    phases.open(name, event("start"), 0)
    phases.open(name, event("advance"), 1)
    shares = event("reallocate", allocation={"now": 0.9, "lighter": 0.2})
    assert "1.1" in refused(409, "not_allowed_now", phases.open, name, shares, 2)
    assert phases.open(name, event("reallocate", allocation={"now": 0.9, "lighter": 0.1}), 2)


def test_a_registry_that_is_gone_does_not_undo_a_promotion(
    experiments: Experiments, phases: Phases, agree: Any, live: Path, tmp_path: Path
) -> None:
    name = agree()
    for seen, action in enumerate(("start", "advance", "advance")):
        phases.open(name, event(action), seen)
    experiments.act(name, event("promote", arm="lighter"), 3)
    away = AliasLedger(f"sqlite:///{tmp_path / 'none.db'}")
    lone = Phases(experiments, away, live=live, watched=[])
    followed, said = lone.crown(name)
    assert not followed
    assert "the alias did not follow" in said
    assert phases.crown(name) == phases.crown(name) == (True, phases.crown(name)[1])


def test_the_ledger_of_a_model_that_nobody_registered(ledger: AliasLedger) -> None:
    assert "'맛집'" in refused(404, "unknown_model", ledger.read, "맛집")
