import json
import threading
from pathlib import Path

import pytest

from data.errors import RegistryError
from serving.registry.aliases import LEDGER_NAME, move_alias, read_ledger
from serving.registry.connection import log_run
from serving.registry.evidence import Evidence
from serving.registry.versions import register_version, resolve

NAME = "sentiment"


@pytest.fixture
def register(registry, make_model, tmp_path):
    """Registers a version whose evidence_id is e1, e2, …; returns its number."""
    run_id = log_run(
        registry,
        experiment="training",
        run_name="run",
        params={},
        metrics={},
        tags={},
        artifacts={},
        idempotency_key="run",
    )

    def one(number: int, verdict: str = "pass", **tags: str) -> str:
        make_model(tmp_path / f"model-{number}", weight=float(number))
        return register_version(
            registry,
            name=NAME,
            folder=tmp_path / f"model-{number}",
            tags={"evidence_id": f"e{number}", "gate_verdict": verdict, **tags},
            description="",
            run_id=run_id,
            idempotency_key=f"version-{number}",
        ).version

    return one


def evidence(kind: str, number: int, **changes) -> Evidence:
    decision = {"gate": "pass", "first_model": "pass", "restore": "restore"}.get(kind, "promote")
    return Evidence.model_validate(
        {
            "kind": kind,
            "decision": decision,
            "evidence_id": f"e{number}",
            "artifact_digest": f"digest-{number}",
            "reason": "because",
            **changes,
        }
    )


def verdict(champion: str, challenger: str, **changes) -> Evidence:
    compared = {
        "deployment_id": "d1",
        "champion_version": champion,
        "challenger_version": challenger,
    }
    return evidence("verdict", int(challenger), **(compared | changes))


def move(registry, alias, version, why, expected):
    return move_alias(registry, NAME, alias, version, evidence=why, expected_version=expected)


def named(registry, alias):
    found = resolve(registry, NAME, alias)
    return None if found is None else found.version


@pytest.fixture
def pair(registry, register):
    """Version 1 is champion, version 2 challenger."""
    register(1)
    register(2)
    move(registry, "champion", "1", evidence("first_model", 1), None)
    move(registry, "challenger", "2", evidence("gate", 2), None)
    return registry


def test_a_challenger_is_promoted_and_the_ledger_says_so(pair):
    move(pair, "champion", "2", verdict("1", "2"), "1")
    move(pair, "challenger", None, verdict("1", "2"), "2")
    assert (named(pair, "champion"), named(pair, "challenger")) == ("2", None)
    ledger = [(e.alias, e.phase, e.from_version, e.to_version) for e in read_ledger(pair, NAME)]
    assert ledger == [
        ("champion", "moving", None, "1"),
        ("champion", "moved", None, "1"),
        ("challenger", "moving", None, "2"),
        ("challenger", "moved", None, "2"),
        ("champion", "moving", "1", "2"),
        ("champion", "moved", "1", "2"),
        ("challenger", "moving", "2", None),
        ("challenger", "moved", "2", None),
    ]
    lines = (pair.state / LEDGER_NAME).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        entry.model_dump() for entry in read_ledger(pair, NAME)
    ]


def test_the_same_evidence_moves_an_alias_once(pair):
    before = read_ledger(pair, NAME)
    first = move(pair, "champion", "2", verdict("1", "2"), "1")
    assert move(pair, "champion", "2", verdict("1", "2"), "1") == first
    assert len(read_ledger(pair, NAME)) == len(before) + 2


@pytest.mark.parametrize("killed_in", ["set_registered_model_alias", "after"])
def test_a_move_that_was_killed_is_completed(pair, monkeypatch, killed_in):
    client = type(pair.client)
    real = client.set_registered_model_alias

    def killed(*arguments):
        if killed_in == "after":
            real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            move(pair, "champion", "2", verdict("1", "2"), "1")
    move(pair, "champion", "2", verdict("1", "2"), "1")
    assert named(pair, "champion") == "2"
    assert read_ledger(pair, NAME)[-1].phase == "moved"


def test_an_alias_moved_by_hand_is_not_overwritten(pair, register):
    register(3)
    pair.client.set_registered_model_alias(NAME, "champion", "3")
    with pytest.raises(RegistryError, match=r"names version '3', '1' was expected.*by hand"):
        move(pair, "champion", "2", verdict("1", "2"), "1")
    assert named(pair, "champion") == "3"


def test_an_alias_moved_by_hand_to_the_right_version_is_not_taken_for_ours(pair):
    pair.client.set_registered_model_alias(NAME, "champion", "2")
    with pytest.raises(RegistryError, match="by hand"):
        move(pair, "champion", "2", verdict("1", "2"), "1")


def test_of_two_who_race_one_wins(pair, register):
    register(3)
    move(pair, "challenger", "3", evidence("gate", 3), "2")
    outcomes = []

    def race(challenger):
        try:
            outcomes.append(move(pair, "champion", challenger, verdict("1", challenger), "1"))
        except RegistryError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=race, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [refused] = [outcome for outcome in outcomes if isinstance(outcome, RegistryError)]
    [won] = [outcome for outcome in outcomes if not isinstance(outcome, RegistryError)]
    assert "moved meanwhile" in str(refused)
    assert named(pair, "champion") == won.to_version


@pytest.mark.parametrize(
    ("alias", "version", "why", "expected", "message"),
    [
        ("champion", "2", evidence("gate", 2), "1", "makes no champion"),
        ("champion", "2", evidence("first_model", 2), "1", "restore one of them"),
        ("champion", "2", verdict("1", "2", decision="roll_back"), "1", "makes no champion"),
        ("champion", "2", verdict("7", "2"), "1", "compared with champion '7'"),
        ("champion", "2", verdict("1", "2", deployment_id=None), "1", "in None"),
        ("champion", "2", verdict("1", "2", challenger_version="1"), "1", "about version '1'"),
        ("champion", "2", verdict("1", "2", evidence_id="e9"), "1", "registered with 'e2'"),
        ("champion", "2", evidence("restore", 2), "1", "only an earlier champion"),
        ("champion", None, verdict("1", "2", evidence_id="e1"), "1", "not taken away"),
        ("challenger", "1", verdict("1", "1"), "2", "only a passing gate"),
        ("challenger", None, evidence("gate", 2), "2", "only a verdict"),
        ("challenger", None, verdict("1", "2", challenger_version="9"), "2", "about version '9'"),
        ("challenger", "1", evidence("gate", 2), "2", "registered with 'e1'"),
        ("challenger", "9", evidence("gate", 9), "2", "could not"),
    ],
)
def test_an_alias_does_not_move_without_its_evidence(pair, alias, version, why, expected, message):
    before = read_ledger(pair, NAME)
    with pytest.raises(RegistryError, match=message):
        move(pair, alias, version, why, expected)
    assert (named(pair, "champion"), named(pair, "challenger")) == ("1", "2")
    assert read_ledger(pair, NAME) == before


@pytest.mark.parametrize("gate", ["fail", "inconclusive"])
def test_a_version_whose_gate_did_not_pass_gets_no_alias(registry, register, gate):
    register(1, verdict=gate)
    for alias, kind in (("challenger", "gate"), ("champion", "first_model")):
        with pytest.raises(RegistryError, match=f"gate said '{gate}'"):
            move(registry, alias, "1", evidence(kind, 1), None)
        assert named(registry, alias) is None


def test_a_version_that_was_rolled_back_does_not_return(pair, register):
    register(3, rolled_back_by="d0")
    with pytest.raises(RegistryError, match="rolled back by 'd0'"):
        move(pair, "challenger", "3", evidence("gate", 3), "2")


def test_an_earlier_champion_can_be_restored(pair):
    move(pair, "champion", "2", verdict("1", "2"), "1")
    move(pair, "champion", "1", evidence("restore", 1), "2")
    assert named(pair, "champion") == "1"


def test_a_champion_that_was_deleted_is_not_replaced_by_a_first_model(pair, register):
    register(3)
    pair.client.delete_registered_model_alias(NAME, "champion")
    with pytest.raises(RegistryError, match=r"champions before, \['1'\]"):
        move(pair, "champion", "3", evidence("first_model", 3), None)


def test_a_ledger_edited_by_hand_is_refused(pair):
    tags = pair.client.get_registered_model(NAME).tags
    key = next(key for key in tags if key.startswith("alias_ledger."))
    pair.client.set_registered_model_tag(NAME, key, "{}")
    with pytest.raises(RegistryError, match="edited by hand"):
        read_ledger(pair, NAME)


def test_only_one_function_sets_aliases():
    root = Path(__file__).parents[3]
    rooms = ("data", "serving", "training", "components", "pipelines")
    setting = [
        path.relative_to(root).as_posix()
        for room in rooms
        for path in (root / room).rglob("*.py")
        if "registered_model_alias" in path.read_text(encoding="utf-8")
    ]
    assert setting == ["serving/registry/aliases.py"]
