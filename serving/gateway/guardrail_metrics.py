"""What Prometheus is told of experiments: their states, guardrails, and units."""

from collections.abc import Collection
from functools import partial
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from serving.experiments.guardrail_readings import GuardrailReading, PhaseLook
from serving.experiments.lifecycle import State

_STATES: Final[tuple[State, ...]] = get_args(State)
_READING: Final = ("experiment", "metric", "arm")


class GuardrailMetrics:
    """Of the experiments whose phases this gateway serves."""

    def __init__(self, registry: CollectorRegistry):
        """Make them in a registry."""
        counter = partial(Counter, namespace="matjip", registry=registry)
        gauge = partial(Gauge, namespace="matjip", registry=registry)
        self._shown: set[str] = set()
        self._breaches = counter(
            "guardrail_breaches",
            "Guardrails and signals on whose breach this gateway acted.",
            _READING,
        )
        self._difference = gauge(
            "guardrail_difference", "Of the last look: arm minus control.", _READING
        )
        self._loss = gauge(
            "guardrail_least_loss",
            "Of the last look: the loss is at least so much, however often one looks.",
            _READING,
        )
        self._margin = gauge("guardrail_margin", "Loss that is accepted.", _READING)
        self._state = gauge(
            "experiment_state", "1 for the state that it is in.", ["experiment", "state"]
        )
        self._units = gauge(
            "experiment_units", "Of the open phase, as the last look found.", ["experiment", "arm"]
        )
        self._ratio = gauge(
            "experiment_sample_ratio_broken",
            "1 where units are not dealt as they were meant to be.",
            ["experiment"],
        )
        self.looked_at = gauge(
            "guardrail_look_timestamp_seconds", "When guardrails were last looked at."
        )

    def keep(self, experiments: Collection[str]) -> None:
        """Say no more of any other experiment: it is not served here any more."""
        gone = self._shown - set(experiments)
        for experiment in gone:
            for series in (
                self._difference,
                self._loss,
                self._margin,
                self._state,
                self._units,
                self._ratio,
            ):
                series.remove_by_labels({"experiment": experiment})
        self._shown -= gone

    def show_state(self, experiment: str, state: State) -> None:
        """Say where an experiment stands."""
        self._shown.add(experiment)
        for each in _STATES:
            self._state.labels(experiment, each).set(float(each == state))

    def show(self, look: PhaseLook) -> None:
        """Say what the last look found; what is not known yet has no series, or keeps its last."""
        self.looked_at.set(look.looked_at_us / 1e6)
        for arm, units in look.units.items():
            self._units.labels(look.experiment, arm).set(units)
        if look.sample_ratio is not None:
            self._ratio.labels(look.experiment).set(float(look.sample_ratio.broken))
        for reading in look.readings:
            labels = (look.experiment, reading.metric, reading.arm)
            self._breaches.labels(*labels)
            self._margin.labels(*labels).set(reading.margin)
            for series, value in (
                (self._difference, reading.estimate),
                (self._loss, reading.least_loss),
            ):
                if value is not None:
                    series.labels(*labels).set(value)

    def count_breach(self, experiment: str, reading: GuardrailReading) -> None:
        """Count a breach that was acted on."""
        self._breaches.labels(experiment, reading.metric, reading.arm).inc()
