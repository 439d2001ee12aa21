"""A report says the same of the same rows in SQLite and in PostgreSQL."""

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from serving.experiments.analysis import report_of
from serving.experiments.store import Feedback

pytestmark = pytest.mark.services

CONFTEST = Path(__file__).parents[1] / "serving" / "experiments" / "conftest.py"
PHASES = [
    {"kind": "shadow", "mirrored": 0.5, "min_units": 30},
    {"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}, "min_units": 100},
]


def _served(url: str) -> Any:
    """A shadow with answers that differ, then an A/B of three metrics."""
    made = runpy.run_path(str(CONFTEST))
    values = made["SPECIFICATION"] | {"phases": PHASES}
    values["metrics"] = values["metrics"] | {
        "signals": [
            {"name": "latency_ms", "direction": "decrease", "quantile": 0.5},
            {"name": "stars", "direction": "increase"},
            {"name": "cost", "direction": "decrease"},
        ]
    }
    it = made["Trial"](url, values)
    it.open()
    shown, said = [], []
    for unit in range(200):
        one = it.exposure("float", unit, latency_ms=10.0 + unit % 7)
        label = "negative" if unit % 6 == 0 else "positive"
        answer = made["prediction"](label)
        given = {"request_id": one.request_id, "why": "mirrored", "prediction": answer}
        shown += [one, it.exposure("int8", unit, **given)]
        true = "positive" if unit % 5 else "neutral"
        said.append(Feedback(one.request_id, 0, one.created_at_us + 1, sentiment=true))
    it.write(shown, said)
    it.open("advance")
    it.serve(500, {"float": 0.7, "int8": 0.8}, asks=2, cost=0.5)
    shown, said = [], []
    for unit in range(500, 700):
        arm = ("float", "int8")[unit % 2]
        failed = {"status": "failed", "prediction": b'{"error":"engine_failed"}'}
        one = it.exposure(arm, unit, latency_ms=5.0 + unit % 11, **failed if unit % 9 == 0 else {})
        shown.append(one)
        if unit % 9:
            at_us = one.created_at_us + 1
            said.append(Feedback(one.request_id, 0, at_us, sentiment="positive"))
            said.append(
                Feedback(one.request_id, 0, at_us, f"별점-{unit}", reward=4.5, metric="stars")
            )
    it.write(shown, said)
    it.catalogue.close()
    return it


def _same(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of sums that are added up in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def test_a_report_says_the_same_on_both_databases(postgres_url: str, tmp_path: Path) -> None:
    urls = (f"sqlite:///{tmp_path / 'store.db'}", postgres_url)
    trials = [_served(url) for url in urls]
    for phase in (1, 2):
        on_sqlite, on_postgres = (
            report_of(it.url, it.name, phase=phase, clock=lambda it=it: it.now_us) for it in trials
        )
        assert on_sqlite.disagreements[0].pairs == 200
        assert on_sqlite.arms[0].asks > 0
        assert _same(on_sqlite.model_dump(mode="json"), on_postgres.model_dump(mode="json"))
