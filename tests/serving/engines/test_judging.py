"""Which of the measured engines is picked, and what is said of the others."""

import pytest

from data.errors import EngineError
from serving.engines.judging import judge
from serving.engines.tuned import MeasuredEngine, QualityBudget


def row(engine: str, speed: float, **changed: object) -> MeasuredEngine:
    good = {"cos_mean": 1.0, "cos_p1": 1.0, "cos_min": 1.0, "top10_overlap": 1.0}
    return MeasuredEngine.model_validate(
        {"engine": engine, "tokens_per_s": speed, "batch_invariant": True, "alone_cos_min": 1.0}
        | good
        | changed
    )


def test_the_fastest_within_the_budget_is_picked_and_the_rest_explained():
    picked, judged = judge(
        [
            row("exact", 100.0),
            row("bad-tail", 900.0, cos_p1=0.81),
            row("bad-mean", 800.0, cos_mean=0.9),
            row("bad-neighbours", 700.0, top10_overlap=0.5),
            row("bad-labels", 600.0, label_agreement=0.98),
            row("bad-probabilities", 500.0, label_agreement=1.0, probability_shift=0.22),
            row("fast", 400.0, label_agreement=1.0, probability_shift=0.0),
            MeasuredEngine(engine="broken", error="EngineError: it broke"),
        ],
        QualityBudget(),
    )
    assert picked == "fast"
    assert {one.engine: one.verdict for one in judged} == {
        "exact": "0.25 × the speed of fast",
        "bad-tail": "cos_p1=0.8100 < 0.98",
        "bad-mean": "cos_mean=0.9000 < 0.995",
        "bad-neighbours": "top10_overlap=0.5000 < 0.94",
        "bad-labels": "label_agreement=0.9800 < 0.99",
        "bad-probabilities": "probability_shift=0.2200 > 0.01",
        "fast": "picked",
        "broken": "EngineError: it broke",
    }


def test_answers_that_depend_on_batch_mates_can_be_ruled_out():
    rows = [
        row("exact", 100.0),
        row("by-batch", 900.0, batch_invariant=False),
        row("says-so", 800.0, alone_cos_min=0.99),
    ]
    assert judge(rows, QualityBudget())[0] == "by-batch"
    picked, judged = judge(rows, QualityBudget(batch_invariant=True))
    assert picked == "exact"
    assert judged[1].verdict == "its answers depend on batch-mates"
    assert judged[2].verdict == "alone_cos_min=0.99000 < 0.9999"


def test_nothing_within_the_budget_is_an_error():
    with pytest.raises(EngineError, match=r"no engine keeps.*poor: cos_mean=0\.5000 < 0\.995"):
        judge([row("poor", 1.0, cos_mean=0.5)], QualityBudget())


def test_of_engines_that_are_nearly_as_fast_the_most_exact_is_picked():
    rows = [
        row("exact", 90.0),
        row("near", 97.5, cos_mean=0.9999),
        row("nearer", 98.0, cos_mean=0.9996),
        row("fastest", 100.0, cos_mean=0.998),
        row("outside", 99.0, cos_mean=0.9),
    ]
    picked, judged = judge(rows, QualityBudget())
    assert picked == "near"
    assert [one.verdict for one in judged] == [
        "0.92 × the speed of near",
        "picked: 0.975 × the speed of fastest, and more exact: cos_mean=0.99990, not 0.99800",
        "1.01 × the speed of near, less exact",
        "1.03 × the speed of near, less exact",
        "cos_mean=0.9000 < 0.995",
    ]
    rows[1] = row("near", 96.9, cos_mean=0.9999)
    assert judge(rows, QualityBudget())[0] == "nearer"
    rows[3] = row("fastest", 100.0, cos_mean=0.999599)
    assert judge(rows, QualityBudget())[0] == "fastest"
