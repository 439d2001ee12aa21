"""A store of its own for each test; one experiment as it is agreed, and ways to change it."""

import copy
import hashlib
import runpy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from serving.experiments.catalogue import Catalogue, Served
from serving.experiments.lifecycle import Event
from serving.experiments.specification import specification_of
from serving.experiments.store import ExperimentStore, Exposure, Feedback

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
def open_phase_at(
    agreed: Callable[..., dict[str, Any]],
) -> Iterator[Callable[..., Any]]:
    """Opens the phase of a kind in the store of an address; see ``open_phase``."""
    opened, ends = runpy.run_path(str(OPEN_PHASE))["OpenPhase"], ExitStack()

    def start(url: str, kind: str, changes: dict[str, Any] | None = None) -> Any:
        store = ends.enter_context(closing(ExperimentStore(url)))
        catalogue = ends.enter_context(closing(Catalogue(url)))
        return opened(store, catalogue, agreed(changes), kind)

    with ends:
        yield start


@pytest.fixture
def open_phase(open_phase_at: Callable[..., Any], url: str) -> Callable[..., Any]:
    """Opens the phase of a kind: ``open_phase("canary", {"stopping": {"alpha": 0.1}})``."""
    return partial(open_phase_at, url)


class Trial:
    """An experiment in a store, its phases served one after the other by made-up units."""

    def __init__(self, url: str, values: dict[str, Any], *, began_us: int = 1_700_000_000_000_000):
        self.url, self.now_us = url, began_us
        self.specification = specification_of(values, where="a test")
        self.catalogue = Catalogue(url, now_us=lambda: self.now_us)
        self.catalogue.put(self.specification)
        self.name, self.deployment_id = self.specification.name, ""
        self._phases, self._requests = 0, 0

    def open(self, action: str = "start") -> str:
        """Open the next phase, served by a deployment of its own."""
        self._phases += 1
        self.deployment_id = f"{self._phases:032x}"
        shares = self.specification.shares(self.specification.phases[self._phases - 1])
        arms = [
            {"name": name, "share": share, "model_name": "m", "version": str(place)}
            for place, (name, share) in enumerate(shares.items(), start=1)
        ]
        served = Served("sentiment", self.deployment_id, {"arms": arms})
        event = Event(action=action, by="a test", reason="a test")
        self.catalogue.record(self.name, event, serves=served)
        return self.deployment_id

    def exposure(self, arm: str, unit: int, **changes: Any) -> Exposure:
        """One answer of an arm, a second after the one before."""
        self._requests += 1
        self.now_us += 1_000_000
        names = [each.name for each in self.specification.arms]
        given: dict[str, Any] = {
            "request_id": f"r{self._requests}",
            "item": 0,
            "experiment_id": self.name,
            "deployment_id": self.deployment_id,
            "unit": hashlib.sha256(str(unit).encode()).hexdigest(),
            "arm": arm,
            "model_version": f"m/{names.index(arm) + 1}" if arm in names else "m/9",
            "text_sha256": hashlib.sha256(f"맛있어요 {self._requests}".encode()).hexdigest(),
            "prediction": prediction("positive"),
            "latency_ms": 10.0,
            "created_at_us": self.now_us,
        }
        return Exposure(**(given | changes))

    def serve(
        self,
        units: int,
        right: dict[str, float],
        *,
        asks: int = 1,
        seed: int = 3,
        heard: dict[str, float] | None = None,
        first: int = 0,
        **changes: Any,
    ) -> None:
        """Units that each meet an arm by the phase's shares; ``right`` of an arm's answers are.

        ``heard`` of an arm's answers get feedback; the other keys are the exposures' own.
        """
        random = np.random.default_rng(seed)
        phase = self.specification.phases[self._phases - 1]
        shares = self.specification.shares(phase)
        arms = random.choice(list(shares), size=units, p=list(shares.values()))
        shown, said = [], []
        for unit, arm in enumerate(arms, start=first):
            for _ in range(asks):
                one = self.exposure(str(arm), unit, **changes)
                shown.append(one)
                good, told = random.random() < right[arm], random.random()
                if told < (heard or {}).get(str(arm), 1.0):
                    true = "positive" if good else "negative"
                    at_us = one.created_at_us + 1
                    said.append(Feedback(one.request_id, 0, at_us, sentiment=true))
        with closing(ExperimentStore(self.url)) as store:
            store.write(shown)
            store.write([], said)

    def write(self, shown: list[Exposure], said: list[Feedback] | None = None) -> None:
        """Keep them as they are."""
        with closing(ExperimentStore(self.url)) as store:
            store.write(shown)
            store.write([], said or [])


def prediction(label: str, probability: float = 0.9) -> bytes:
    """An answer as the store keeps it."""
    others = [name for name in ("negative", "neutral", "positive") if name != label]
    chances = {label: probability} | dict.fromkeys(others, (1.0 - probability) / 2)
    return orjson.dumps({"sentiment": {"label": label, "probabilities": chances}})


@pytest.fixture
def trial(url: str, agreed: Callable[..., dict[str, Any]]) -> Iterator[Callable[..., Trial]]:
    """``trial({"metrics.primary.margin": 0.05})``: the experiment, agreed with changes."""
    made: list[Trial] = []

    def make(changes: dict[str, Any] | None = None) -> Trial:
        made.append(Trial(url, agreed(changes)))
        return made[-1]

    yield make
    for each in made:
        each.catalogue.close()
