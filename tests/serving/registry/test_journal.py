import pytest

from data.errors import RegistryError
from serving.registry import ledger
from serving.registry.journal import FOLDER_NAME, journals, open_journal


def test_a_journal_keeps_plan_steps_and_end(tmp_path, plan):
    journal = open_journal(tmp_path, plan("promote"))
    journal.note("resolve")
    journal.note("fetch")
    [read] = journals(tmp_path)
    assert (read.plan, read.steps, read.end) == (plan("promote"), ["resolve", "fetch"], None)
    journal.close("refused", "별칭이 옮겨졌다")
    [read] = journals(tmp_path)
    assert (read.end, read.reason) == ("refused", "별칭이 옮겨졌다")
    read.begin_again()
    [read] = journals(tmp_path)
    assert (read.steps, read.end, read.reason) == ([], None, "")


def test_the_same_change_on_the_same_evidence_is_one_journal(tmp_path, plan):
    first = open_journal(tmp_path, plan("promote"))
    first.note("resolve")
    assert open_journal(tmp_path, plan("promote", deployment_id=None)).steps == ["resolve"]
    assert open_journal(tmp_path, plan("restore")).number == 2
    assert [journal.number for journal in journals(tmp_path, "sentiment")] == [1, 2]
    assert list(journals(tmp_path, "other")) == []


def test_what_another_process_wrote_is_taken_in(tmp_path, plan):
    journal = open_journal(tmp_path, plan("promote"))
    open_journal(tmp_path, plan("promote")).close("superseded", "되돌렸다")
    journal.read_again()
    assert (journal.end, journal.reason) == ("superseded", "되돌렸다")


def test_a_journal_whose_plan_was_cut_short_did_nothing_and_keeps_its_number(tmp_path, plan):
    path = open_journal(tmp_path, plan("promote")).path
    path.write_bytes(path.read_bytes()[:40])
    assert list(journals(tmp_path)) == []
    assert open_journal(tmp_path, plan("promote")).number == 2


@pytest.mark.parametrize("line", ["{}", '{"at": "now", "wish": 1}', '{"at": "now", "end": "odd"}'])
def test_a_journal_edited_by_hand_is_refused(tmp_path, plan, line):
    path = open_journal(tmp_path, plan("promote")).path
    path.write_text(f"{line}\n")
    with pytest.raises(RegistryError, match="line 1 is no line of a journal"):
        list(journals(tmp_path))


def test_a_journal_without_its_plan_is_refused(tmp_path, plan):
    path = open_journal(tmp_path, plan("promote")).path
    path.write_text('{"at": "2026-11-30T00:00:00.000+00:00", "step": "fetch"}\n')
    with pytest.raises(RegistryError, match="holds no plan"):
        list(journals(tmp_path))


def test_a_folder_that_cannot_be_written_is_an_error_that_can_be_mended(tmp_path, plan):
    (tmp_path / FOLDER_NAME).write_text("a file")
    with pytest.raises(RegistryError, match="cannot open a journal"):
        open_journal(tmp_path, plan("promote"))


def test_a_disk_that_is_full_is_an_error_that_can_be_mended(tmp_path, plan, monkeypatch):
    journal = open_journal(tmp_path, plan("promote"))

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.registry.journal.append_line", full)
    with pytest.raises(RegistryError, match="No space left"):
        journal.note("fetch")
    assert journal.steps == []


def test_a_clock_that_is_set_back_does_not_turn_the_lines_around(tmp_path, plan, monkeypatch):
    journal = open_journal(tmp_path, plan("promote"))
    later = "2999-01-01T00:00:00.000+00:00"
    journal.at = later
    journal.note("fetch")
    assert journal.at == later
    assert ledger.now_after(None) < later
