"""Some of the drills; all of them are `make ab-sim`'s."""

import pytest

from bench import ab_kill_drills
from bench.ab_kill_drills import DRILLS, Drill, Outcome, in_process, measure, run_drills

pytestmark = pytest.mark.slow


@pytest.fixture
def say():
    said = []
    return said.append


def test_kills_here_and_there_leave_one_champion_and_what_does_not_is_told(tmp_path, say):
    first = DRILLS[0]
    wrong = Drill("wrong", first.begins, first.act, champion="1", everybody=first.everybody)
    outcome = run_drills(tmp_path, [*DRILLS, wrong], say, every=16)
    assert outcome.kills >= 9
    assert {failure.partition(",")[0] for failure in outcome.failures} == {"wrong"}
    assert "are ['2', 'challenger'], not ['1', 'challenger']" in outcome.failures[0]


def test_a_process_tells_how_it_ended(tmp_path):
    def fails():
        raise ValueError("fails")

    assert in_process(tmp_path, lambda: "답") == (0, "답")
    assert in_process(tmp_path, fails) == (1, None)


def test_the_figure_counts_failures(monkeypatch, say):
    monkeypatch.setattr(ab_kill_drills, "run_drills", lambda *_: Outcome(7, ("x", "y")))
    figure = measure(say)["kill_drills_failed"]
    assert (figure.value, figure.bar, figure.met) == (2.0, "0", False)
    assert figure.conditions.startswith("7 processes killed by SIGKILL")
