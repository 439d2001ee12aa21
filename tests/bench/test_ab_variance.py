import numpy as np
import pytest

from bench import ab_variance


def test_cuped_cuts_the_variance_and_says_on_what(monkeypatch):
    monkeypatch.setattr(ab_variance, "RUNS", 80)
    said = []
    figure = ab_variance.measure(said.append)["cuped_variance_cut"]
    assert figure.value == pytest.approx(ab_variance.CORRELATION**2, abs=0.03)
    assert figure.met is True
    assert figure.bar == ">= 0.3"
    assert "80 experiments" in figure.conditions
    assert "false positives" in figure.conditions
    assert len(said) == 2


def test_a_level_that_is_not_kept_does_not_meet_the_bar(monkeypatch):
    def always_above_zero(challenger, outcome, guesses):
        width = 1.0 if guesses is None else 0.5
        return np.stack([np.full(len(outcome), 1.0), np.full(len(outcome), 1.0 + width)])

    monkeypatch.setattr(ab_variance, "RUNS", 80)
    monkeypatch.setattr(ab_variance, "_ends", always_above_zero)
    figure = ab_variance.measure(lambda _: None)["cuped_variance_cut"]
    assert figure.value >= 0.3
    assert figure.met is False
