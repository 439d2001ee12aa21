import json
import sys
import types

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from bench import ab_plots, ab_sequences, ab_sim
from bench.ab_figures import AbFigure
from bench.ab_sequences import TRAFFICS, draw, measure, naive_outside, stops, wrong_share

GOOD = AbFigure(0.5, ">= 0.3", "10 runs", met=True)
BAD = AbFigure(0.1, ">= 0.3", "10 runs", met=False)


@pytest.fixture
def parts(monkeypatch):
    """Three parts: one that measures, one that misses its bar, one that dies."""

    def dies(say):
        say("begins")
        raise ValueError("no traffic")

    measured = {
        "good": lambda say: (say("half"), {"a": GOOD})[1],
        "bad": lambda say: {"b": BAD},
        "dead": dies,
    }
    for name, function in measured.items():
        module = types.ModuleType(f"fake_{name}")
        module.measure = function
        monkeypatch.setitem(sys.modules, f"fake_{name}", module)
    return {name: f"fake_{name}" for name in measured}


def test_a_part_that_fails_leaves_its_reason_and_the_others_go_on(parts, tmp_path):
    said = []
    order = {name: parts[name] for name in ("dead", "good", "bad")} | {"none": "no.such.module"}
    figures, failures = ab_sim.run_parts(order, said.append)
    assert figures == {"a": GOOD, "b": BAD}
    assert failures["dead"] == "ValueError: no traffic"
    assert "ModuleNotFoundError" in failures["none"]
    assert any("good" in line and "half" in line for line in said)
    ab_sim.write_figures(tmp_path / "ab.json", figures, failures, 1.25)
    written = json.loads((tmp_path / "ab.json").read_text())
    assert written["figures"]["a"] == {"value": 0.5, "bar": ">= 0.3", "conditions": "10 runs"}
    assert set(written["failures"]) == {"dead", "none"}
    assert written["machine"]["cores"] >= 1
    assert ab_sim.table_of(figures, failures).row_count == 4


@pytest.mark.parametrize(("only", "status"), [("good", 0), ("bad", 1), ("dead", 1)])
def test_the_status_says_whether_every_bar_was_met(parts, only, status, tmp_path, monkeypatch):
    monkeypatch.setattr(ab_sim, "PARTS", parts)
    app = ab_sim.typer.Typer()
    app.command()(ab_sim.main)
    asked = ["--only", only, "--folder", str(tmp_path), "--no-plots"]
    assert CliRunner().invoke(app, asked).exit_code == status
    assert (tmp_path / "ab.json").is_file()
    assert CliRunner().invoke(app, ["--only", "unknown"]).exit_code == 2


def test_small_runs_have_every_figure():
    said = []
    figures = measure(said.append, runs=60, units=1_000, stop_runs=10)
    assert set(figures) == {
        "false_positive_rate", "naive_false_positive_rate", "coverage", "sample_ratio_x"
    }  # fmt: skip
    assert figures["coverage"].value >= 0.9
    assert 0.3 < figures["sample_ratio_x"].value < 3
    assert len(said) == 2 * len(TRAFFICS) + 2


@pytest.mark.parametrize("traffic", TRAFFICS, ids=lambda traffic: traffic.name)
def test_traffic_has_the_effect_that_it_says(traffic):
    random = np.random.default_rng(1)
    for same in (True, False):
        on, outcome = draw(traffic, random, 100, 20_000, same=same)
        assert on.mean() == pytest.approx(traffic.share, abs=0.002)
        found = outcome[on].mean() - outcome[~on].mean()
        error = np.sqrt(outcome[on].var() / on.sum() + outcome[~on].var() / (~on).sum())
        assert found == pytest.approx(traffic.effect(same=same), abs=4 * error)


def test_the_naive_test_is_the_z_test():
    """At a look, |z| as scipy has it from the arms' means and variances (divided by n)."""
    on, outcome = draw(TRAFFICS[0], np.random.default_rng(3), 5, 900, same=False)
    outside = naive_outside(on, outcome, 0.0)
    for run in range(5):
        for look in (250, 600, 900):
            arms = outcome[run, :look][on[run, :look]], outcome[run, :look][~on[run, :look]]
            error = np.sqrt(sum(arm.var() / arm.size for arm in arms))
            p = 2 * stats.norm.sf(abs(arms[0].mean() - arms[1].mean()) / error)
            assert outside[run, look - 1] == (p < 0.05)


def test_a_run_that_finds_nothing_counts_with_the_horizon():
    quiet = ab_sequences.Traffic("quiet", "rate", 0.5, 0.5001, 0.5, 0.0)
    at, side = stops(quiet, runs=40, units=500, tuned=500)
    assert (at[side == 0] == 500).all()
    assert (side == 0).mean() > 0.9


def test_wrong_runs_are_counted_once_by_each_unit():
    found = wrong_share(TRAFFICS[0], same=True, runs=200, units=1_000, naive_at=(300, 1_000))
    assert found.naive[300] <= found.naive[1_000]
    assert found.sequence < found.naive[1_000]


def test_plots_are_drawn(tmp_path):
    assert ab_plots.peeking_plot(tmp_path / "a.svg", runs=20, units=500) == "a.svg"
    ab_plots.timeline_plot(tmp_path / "b.svg", units=500)
    ab_plots.stopping_plot(tmp_path / "c.svg", runs=3)
    assert all((tmp_path / f"{name}.svg").stat().st_size > 1_000 for name in "abc")
