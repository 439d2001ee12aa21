"""A store of its own for each test; one experiment as it is agreed, and ways to change it."""

import copy
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.experiments.catalogue import Catalogue
from serving.experiments.store import ExperimentStore

OPEN_PHASE = Path(__file__).parents[2] / "open_phase.py"
SPECIFICATION: dict[str, Any] = {
    "name": "sentiment-int8",
    "hypothesis": "INT8 answers like the float model, at half its cost",
    "owner": "review-analysis",
    "unit": "user",
    "arms": [
        {"name": "float", "model": "models:/matjip-sentiment@champion"},
        {"name": "int8", "model": "models:/matjip-sentiment/7"},
    ],
    "metrics": {
        "primary": {"name": "sentiment_accuracy", "direction": "increase", "margin": 0.02},
        "guardrails": [{"name": "error_rate", "direction": "decrease", "margin": 0.01}],
        "signals": [
            {"name": "latency_ms", "quantile": 0.95, "direction": "decrease", "margin": 20.0}
        ],
    },
    "phases": [
        {"kind": "shadow", "mirrored": 0.2},
        {"kind": "canary", "allocation": {"float": 0.95, "int8": 0.05}},
        {"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}, "min_units": 500},
    ],
}


@pytest.fixture
def agreed() -> Callable[..., dict[str, Any]]:
    """The experiment's values, with changes: ``agreed({"arms.1.model": "models:/m/8"})``."""

    def changed(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        values = copy.deepcopy(SPECIFICATION)
        for path, value in (changes or {}).items():
            *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
            place: Any = values
            for part in above:
                place = place[part]
            place[last] = value
        return values

    return changed


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a SQLite store that is not there yet."""
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str) -> Iterator[ExperimentStore]:
    """The store of that address."""
    opened = ExperimentStore(url)
    yield opened
    opened.close()


@pytest.fixture
def open_phase(
    url: str, store: ExperimentStore, agreed: Callable[..., dict[str, Any]]
) -> Iterator[Callable[..., Any]]:
    """Opens the phase of a kind: ``open_phase("canary", {"stopping": {"alpha": 0.1}})``."""
    catalogue = Catalogue(url)
    opened = runpy.run_path(str(OPEN_PHASE))["OpenPhase"]
    yield lambda kind, changes=None: opened(store, catalogue, agreed(changes), kind)
    catalogue.close()
