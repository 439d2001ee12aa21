import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from bench import ab_world_plots, ab_worlds
from bench.ab_archive import ROOT
from bench.ab_runs import Runs, Study, play, pool, simulate
from bench.ab_unit_worlds import BOTS, CLUSTERED
from bench.ab_world_figures import LIFT, LOOKS, RULE
from bench.ab_worlds import WORLDS

KEYS = {
    "clustered": {"false_positive_rate", "naive_false_positive_rate", "coverage"},
    "bots": {"false_positive_rate", "naive_false_positive_rate", "judged_rate"},
    "late": {"outcomes_coverage", "outcomes_judged_rate"},
    "missing": {"by_arm_invalid_rate", "alike_invalid_rate", "unseen_bias"},
}
SMALL = replace(CLUSTERED, units=300)


def always(decision, *, low, high):
    """A product that says the same of every experiment."""

    def said(study, runs):
        shape = (runs, len(study.looks))
        return Runs(
            decision=np.full(shape, decision),
            estimate=np.full(shape, (low + high) / 2),
            low=np.full(shape, low),
            high=np.full(shape, high),
            p={name: np.full(shape, 1.0) for name in study.analyses},
        )

    return said


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of six runs, each may be invalid
@pytest.mark.parametrize("world", WORLDS)
def test_every_world_has_its_figures(world):
    figures = WORLDS[world](simulate, 6)
    if world in KEYS:
        assert set(figures) == {f"{world}_{key}" for key in KEYS[world]}
    assert len(figures) >= 2
    for figure in figures.values():
        assert np.isfinite(figure.value)
        assert figure.bar.startswith(("<= ", ">= ", "> "))
        assert "6 experiments" in figure.conditions or "12 experiments" in figure.conditions


def test_a_product_that_always_promotes_meets_no_bar_of_levels():
    wrong = always("promote", low=0.2, high=0.3)
    for world, key in (
        ("clustered", "clustered_false_positive_rate"),
        ("clustered", "clustered_coverage"),
        ("bots", "bots_false_positive_rate"),
        ("late", "late_outcomes_coverage"),
        ("missing", "missing_by_arm_invalid_rate"),
        ("missing", "missing_unseen_bias"),
        ("novelty", "novelty_settled_bias"),
        ("novelty", "novelty_false_promotion_rate"),
    ):
        assert not WORLDS[world](wrong, 20)[key].met
    refuses = always("invalid", low=-1.0, high=1.0)
    assert not WORLDS["missing"](refuses, 20)["missing_alike_invalid_rate"].met
    assert not WORLDS["late"](refuses, 20)["late_outcomes_judged_rate"].met
    assert not WORLDS["bots"](refuses, 20)["bots_judged_rate"].met
    returns = always("roll_back", low=-0.3, high=-0.2)
    assert not WORLDS["novelty"](returns, 20)["primacy_false_roll_back_rate"].met


def test_processes_change_nothing():
    study = Study(SMALL, RULE, (3.0, 14.0), ("ratio", "per answer"))
    alone = simulate(study, 60)
    with pool() as executor:
        together = simulate(study, 60, executor)
    for name in ("decision", "estimate", "low", "high"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))
    for name, values in alone.p.items():
        np.testing.assert_array_equal(values, together.p[name])
    part = play(study, range(50, 60))
    np.testing.assert_array_equal(alone.estimate[50:], part.estimate)


def test_workers_end_when_their_parent_is_killed():
    simulates = (
        "import os, sys\n"
        "from bench.ab_runs import pool\n"
        "if __name__ == '__main__':\n"
        "    executor = pool()\n"
        "    print(*executor.map(os.getpgid, [0]), *executor._processes, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", simulates],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        workers = [int(pid) for pid in process.stdout.readline().split()[1:]]
        assert workers
        process.kill()
        # Ends once no process holds the pipe's other end, and the workers inherit it.
        process.communicate(timeout=120)


def test_a_large_effect_is_found_and_covered():
    runs = simulate(Study(replace(CLUSTERED, effect=3 * LIFT), RULE, LOOKS), 20)
    assert runs.ever("promote") == 1.0
    assert runs.covered(3 * LIFT) >= 0.9
    assert runs.covered(0.0) == 0.0
    assert np.nanmean(runs.estimate[:, -1]) == pytest.approx(3 * LIFT, abs=0.02)


def test_answers_taken_for_users_are_wrong_where_users_are_busy_or_bots():
    runs = simulate(Study(BOTS, RULE, (14.0,), ("per answer", "capped ratio")), 20)
    assert runs.rejected_last("per answer", 0.05) > 0.5
    assert runs.rejected("capped ratio", 0.05) < 0.2


def test_the_figures_of_all_worlds_are_measured_together(monkeypatch):
    monkeypatch.setattr(ab_worlds, "WORLDS", {"bots": ab_worlds.bots})
    said = []
    figures = ab_worlds.measure(said.append, runs=4)
    assert set(figures) == {f"bots_{key}" for key in KEYS["bots"]}
    assert len(said) == 1
    assert "bots" in said[0]


def test_plots_are_drawn(tmp_path):
    assert ab_world_plots.worlds_plot(tmp_path / "a.svg", runs=2) == "a.svg"
    assert ab_world_plots.novelty_plot(tmp_path / "b.svg", runs=2) == "b.svg"
    assert all((tmp_path / f"{name}.svg").stat().st_size > 5_000 for name in "ab")
