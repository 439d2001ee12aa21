from functools import partial

import pytest

from data.errors import ExperimentError, RegistryError
from serving.experiments.lifecycle import Event
from serving.registry.aliases import read_ledger
from serving.registry.phases import open_phase
from serving.registry.promotion import restore_champion
from serving.registry.versions import resolve
from serving.registry.winners import crown


@pytest.fixture
def promoted(versions, catalogue, agree, tmp_path):
    """Runs an experiment to the promotion of its challenger; arms may be other models."""

    def run(*models):
        arms = [
            {"name": name, "model": model}
            for name, model in zip(("now", "lighter"), models, strict=True)
        ]
        phases = [{"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}}]
        name = agree({"phases": phases} | ({"arms": arms} if models else {}))
        opening = partial(open_phase, versions, catalogue, by="t", reason="r")
        opening(name, "start", live=tmp_path / "live", work=tmp_path / "work")
        catalogue.record(
            name, Event(action="promote", by="t", reason="구간이 말한다", arm="lighter")
        )
        return name

    def with_defaults(*models):
        return run(*(models or ("models:/sentiment@champion", "models:/sentiment@challenger")))

    return with_defaults


def alias(registry, name):
    found = resolve(registry, "sentiment", name)
    return found and found.version


def test_the_winner_becomes_champion_once(versions, catalogue, promoted):
    name = promoted()
    for _ in range(2):
        winner = crown(versions, catalogue, name)
        assert (winner.model, winner.is_champion) == ("sentiment/2", True)
        assert alias(versions, "champion") == "2"
        assert alias(versions, "challenger") is None
    moves = [entry for entry in read_ledger(versions, "sentiment") if entry.phase == "moved"]
    assert [(move.alias, move.to_version) for move in moves[-2:]] == [
        ("champion", "2"),
        ("challenger", None),
    ]
    assert moves[-2].evidence.reason == "구간이 말한다"


def test_a_kill_between_any_two_writes_is_mended_by_the_next_call(
    versions, catalogue, promoted, interrupt
):
    name = promoted()
    instants = []

    def killed_at_a_new_one(instant):
        if instant not in instants:
            instants.append(instant)
            interrupt()

    for _ in range(100):
        try:
            winner = crown(versions, catalogue, name, checkpoint=killed_at_a_new_one)
        except KeyboardInterrupt:
            assert alias(versions, "champion") in {"1", "2"}
        else:
            break
    assert winner.is_champion
    assert len(instants) > 10
    assert (alias(versions, "champion"), alias(versions, "challenger")) == ("2", None)
    moves = [entry for entry in read_ledger(versions, "sentiment") if entry.phase == "moved"]
    assert [move.to_version for move in moves if move.alias == "champion"] == ["1", "2"]


def test_a_champion_that_was_brought_back_stays(versions, catalogue, promoted):
    name = promoted()
    crown(versions, catalogue, name)
    restore_champion(versions, name="sentiment", version="1", reason="불만", ticket="t-1")
    winner = crown(versions, catalogue, name)
    assert not winner.is_champion
    assert "was moved to '1' since: it stays there" in winner.sentence
    assert alias(versions, "champion") == "1"


def test_an_alias_that_was_moved_by_hand_stays_and_is_told(versions, catalogue, promoted):
    name = promoted()
    versions.client.set_registered_model_alias("sentiment", "champion", "3")
    winner = crown(versions, catalogue, name)
    assert not winner.is_champion
    assert "sentiment@champion names version '3', not the control's '1'" in winner.sentence
    assert alias(versions, "champion") == "3"


def test_a_winner_that_is_champion_already_is_told(versions, catalogue, promoted):
    name = promoted()
    versions.client.set_registered_model_alias("sentiment", "champion", "2")
    assert crown(versions, catalogue, name).sentence == "sentiment/2 is the champion already"


def test_a_control_that_was_not_the_champion_moves_no_alias(versions, catalogue, promoted):
    name = promoted("models:/sentiment/3", "models:/sentiment/2")
    assert not crown(versions, catalogue, name).is_champion
    assert alias(versions, "champion") == "1"


def test_a_version_that_may_be_no_champion_is_refused(versions, catalogue, promoted):
    name = promoted()
    versions.client.set_model_version_tag("sentiment", "2", "gate_verdict", "fail")
    with pytest.raises(RegistryError, match="gate said 'fail'"):
        crown(versions, catalogue, name)
    assert alias(versions, "champion") == "1"


def test_without_a_promotion_there_is_no_winner(versions, catalogue, agree):
    with pytest.raises(ExperimentError, match="'draft' and has promoted no arm"):
        crown(versions, catalogue, agree())
