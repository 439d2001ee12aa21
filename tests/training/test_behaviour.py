"""The behaviour cases run on any model; how many a model passes is for its evaluation to say."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data.contract import PHENOMENA, SENTIMENTS
from serving.analyzer import load_analyzer

CASES = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("behaviour_cases.py"))))


def test_cases_are_well_formed():
    assert {case.kind for case in CASES.CASES} == {"minimum", "invariance", "direction"}
    assert CASES.NAMES == SENTIMENTS
    for case in CASES.CASES:
        assert (case.sentiment in SENTIMENTS) == (case.kind == "minimum")
        assert len(case.texts) == 1 if case.kind == "minimum" else len(case.texts) > 1
        assert len(set(case.texts)) == len(case.texts)
    assert len({case.texts for case in CASES.CASES}) == len(CASES.CASES)
    assert {case.phenomenon for case in CASES.CASES} >= {"negation", "slang", "sarcasm"}
    assert set(PHENOMENA) >= {"negation", "slang", "sarcasm"}


def test_every_case_is_answered_and_counted(tiny_model):
    analyzer = load_analyzer(tiny_model)
    rates = CASES.pass_rates(analyzer.probabilities)
    kinds = [case.kind for case in CASES.CASES]
    assert {kind: total for kind, (_, total) in rates.items()} == {
        kind: kinds.count(kind) for kind in set(kinds)
    }
    assert all(0 <= passed <= total for passed, total in rates.values())
    for case in CASES.CASES:
        assert analyzer.probabilities(case.texts).sentiment.shape == (len(case.texts), 3)


@pytest.mark.parametrize(
    ("kind", "chances", "passed"),
    [
        ("minimum", [[0.1, 0.2, 0.7]], True),
        ("minimum", [[0.4, 0.2, 0.3]], False),
        ("invariance", [[0.5, 0.3, 0.2], [0.4, 0.3, 0.3]], True),
        ("invariance", [[0.5, 0.3, 0.2], [0.3, 0.3, 0.4]], False),
        ("direction", [[0.1, 0.1, 0.8], [0.3, 0.2, 0.5], [0.8, 0.1, 0.1]], True),
        ("direction", [[0.1, 0.1, 0.8], [0.1, 0.1, 0.8]], False),
        ("direction", [[0.5, 0.1, 0.4], [0.2, 0.1, 0.7]], False),
    ],
)
def test_passing_by_hand(kind, chances, passed):
    texts = tuple(f"text {number}" for number in range(len(chances)))
    sentiment = "positive" if kind == "minimum" else None
    case = CASES.Case(kind, "plain", texts, sentiment)
    assert CASES.passes(case, np.asarray(chances)) is passed
