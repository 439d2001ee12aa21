import numpy as np
import pytest

from bench import ab_sample_ratio
from bench.ab_sample_ratio import measure, silent_counts, simulate
from serving.experiments.inference.ratio_report import PhaseCounts, RatioRule, phase_report
from serving.experiments.inference.sample_ratio import (
    concentration_for,
    ratio_sequence,
    running_counts,
)

RULE = RatioRule(alpha=0.05, planned_units=300)


def test_the_silent_counts_are_where_the_report_turns():
    least = silent_counts(1_000, RULE)
    for units in (1, 10, 57, 300, 999):
        for smaller in {max(int(least[units - 1]) + step, 0) for step in (-2, -1, 0, 1)}:
            if smaller <= units // 2:
                counts = {"a": smaller, "b": units - smaller}
                phase = PhaseCounts("x", {"a": 0.5, "b": 0.5}, counts)
                alarm = phase_report(phase, RULE).phase.reading == "alarm"
                assert alarm == (smaller < least[units - 1])


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_a_run_alarms_when_the_sequence_does(share):
    """The same units once through the running p-value of the product."""
    found = simulate(share, runs=200, units=600, rule=RULE, seed=5)
    random, first = np.random.default_rng(5), []
    concentration = concentration_for(300, arms=2, alpha=0.05)
    for start in range(0, 200, ab_sample_ratio._BATCH):
        rows = min(ab_sample_ratio._BATCH, 200 - start)
        arm = (random.random((rows, 600), dtype=np.float32) >= share).astype(np.int64)
        p = ratio_sequence(
            running_counts(arm, arms=2), shares=(0.5, 0.5), concentration=concentration
        ).p
        first += [int(np.argmax(row <= 0.05)) + 1 if row[-1] <= 0.05 else 0 for row in p]
    np.testing.assert_array_equal(found.at, first)
    assert 0 < found.naive < 1 or share > 0.5


def test_measures_both_figures_of_one_alarm(monkeypatch):
    monkeypatch.setattr(ab_sample_ratio, "SILENT_RUNS", 40)
    monkeypatch.setattr(ab_sample_ratio, "CATCH_RUNS", 40)
    said = []
    found = measure(said.append)
    assert set(found) == {"srm_silent_rate", "srm_catch_rate"}
    assert found["srm_silent_rate"].met
    assert found["srm_silent_rate"].bar == ">= 0.998"
    assert found["srm_catch_rate"].bar == ">= 0.99"
    assert "level 0.002" in found["srm_silent_rate"].conditions
    assert len(said) == 2
