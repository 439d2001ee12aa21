import json

import pytest

from data.errors import RegistryError
from serving.registry.aliases import move_alias
from serving.registry.evidence import Evidence, LedgerEntry, champions
from serving.registry.ledger import LEDGER_NAME, read_ledger, read_local_ledger, record

NAME = "sentiment"


def tags_of(registry):
    tags = registry.client.get_registered_model(NAME).tags
    return sorted((key, value) for key, value in tags.items() if key.startswith("alias_ledger."))


def test_the_copy_here_says_the_same_without_mlflow(compared):
    assert read_local_ledger(compared.state, NAME) == read_ledger(compared, NAME)
    assert read_local_ledger(compared.state, "other") == []
    assert read_local_ledger(compared.state / "elsewhere", NAME) == []


def test_an_entry_changed_by_hand_is_noticed(compared):
    key, value = tags_of(compared)[1]
    said = json.loads(value) | {"to_version": "2"}
    compared.client.set_registered_model_tag(NAME, key, json.dumps(said))
    with pytest.raises(RegistryError, match=r"entry 2 \(champion, moved\) was changed"):
        read_ledger(compared, NAME)


def test_an_entry_taken_away_by_hand_is_noticed(compared):
    compared.client.delete_registered_model_tag(NAME, tags_of(compared)[1][0])
    with pytest.raises(RegistryError, match="entry 2 says number 3"):
        read_ledger(compared, NAME)


def test_a_first_entry_taken_away_by_hand_is_noticed(compared):
    compared.client.delete_registered_model_tag(NAME, tags_of(compared)[0][0])
    with pytest.raises(RegistryError, match="entry 1 says number 2"):
        read_ledger(compared, NAME)


def test_a_seal_taken_off_by_hand_is_noticed(compared):
    key, value = tags_of(compared)[2]
    compared.client.set_registered_model_tag(
        NAME, key, json.dumps(json.loads(value) | {"seal": ""})
    )
    with pytest.raises(RegistryError, match="entry 3"):
        read_ledger(compared, NAME)


def test_entries_older_than_seals_are_read(compared):
    for key, value in tags_of(compared):
        said = json.loads(value)
        del said["seal"], said["evidence"]["by"]
        compared.client.set_registered_model_tag(NAME, key, json.dumps(said))
    entries = read_ledger(compared, NAME)
    assert [entry.seal for entry in entries] == [""] * 4
    record(compared, entries, entries[-1], "moved")
    assert [bool(entry.seal) for entry in read_ledger(compared, NAME)] == [False] * 4 + [True]


def test_two_machines_that_write_at_once_are_both_kept(compared):
    entries = read_ledger(compared, NAME)
    record(compared, entries, entries[-1], "moving")
    record(compared, entries, entries[-1], "moved")
    both = read_ledger(compared, NAME)
    assert [entry.number for entry in both] == [1, 2, 3, 4, 5, 5]
    record(compared, both, both[-1], "moved")
    assert read_ledger(compared, NAME)[-1].number == 7


def test_a_clock_that_is_set_back_does_not_turn_the_ledger_around(compared):
    entries = read_ledger(compared, NAME)
    later = entries[-1].model_copy(update={"at": "2999-01-01T00:00:00.000+00:00"})
    written = record(compared, [*entries[:-1], later], later, "moved")
    assert written.at == later.at


def test_a_line_of_the_copy_edited_by_hand_is_refused(compared):
    with (compared.state / LEDGER_NAME).open("a") as file:
        file.write("지움\n")
    with pytest.raises(RegistryError, match="line 5 is no entry"):
        read_local_ledger(compared.state, NAME)


def entry(version, kind="verdict", phase="moved", alias="champion"):
    why = Evidence(
        kind=kind, decision="promote", evidence_id="e", artifact_digest="d", reason="because"
    )
    return LedgerEntry(
        number=1,
        at="",
        name=NAME,
        alias=alias,
        phase=phase,
        from_version=None,
        to_version=version,
        evidence=why,
    )


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([], []),
        ([entry("1")], ["1"]),
        ([entry("1"), entry("2")], ["1", "2"]),
        ([entry("1"), entry("2", phase="moving")], ["1"]),
        ([entry("1"), entry("2", alias="challenger")], ["1"]),
        ([entry("1"), entry("2"), entry("2")], ["1", "2"]),
        ([entry("1"), entry("2"), entry("1", kind="restore")], ["1"]),
        ([entry("1"), entry("2"), entry("3"), entry("2", kind="restore")], ["1", "2"]),
        ([entry("1"), entry("2"), entry("1", kind="restore"), entry("3")], ["1", "3"]),
        ([entry("1"), entry("2"), entry("9", kind="restore")], ["1", "2", "9"]),
    ],
)
def test_whoever_was_given_up_is_no_former_champion(entries, line):
    assert champions(entries) == line


def test_a_verdict_moves_an_alias_once_for_all(compared):
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
    back = Evidence(
        kind="restore",
        decision="restore",
        evidence_id="e1",
        artifact_digest="OPS-1",
        reason="오답이 늘었다",
        by="운영",
    )
    moved = move_alias(compared, NAME, "champion", "2", evidence=verdict, expected_version="1")
    move_alias(compared, NAME, "champion", "1", evidence=back, expected_version="2")
    again = move_alias(compared, NAME, "champion", "2", evidence=verdict, expected_version="1")
    assert again == moved
    assert champions(read_ledger(compared, NAME)) == ["1"]


def test_an_alias_moved_by_hand_is_refused_with_what_is_on_record(compared):
    compared.client.set_registered_model_alias(NAME, "champion", "2")
    back = Evidence(
        kind="restore", decision="restore", evidence_id="e1", artifact_digest="x", reason="y"
    )
    with pytest.raises(RegistryError) as refused:
        move_alias(compared, NAME, "champion", "1", evidence=back, expected_version="1")
    said = str(refused.value)
    for part in ("names version '2'", "by hand", "entry 2 of 20", "by 'first_model' ('통과')"):
        assert part in said
