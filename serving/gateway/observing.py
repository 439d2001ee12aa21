"""What batching and admission tell, as Prometheus metrics; the names say their units."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.batching.observer import AdmissionState, RejectReason, RetryReason

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS: Final = (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192)
_RATIO: Final = (1.0, 1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class _Series:
    """One runner's series."""

    rows: Histogram
    size: Histogram
    padding: Histogram
    real: Counter
    padded: Counter
    wait: Histogram
    compute: Histogram


class PrometheusObserver:
    """A ``BatchObserver`` for every runner of a process; ``model`` is the runner's name."""

    def __init__(self, registry: CollectorRegistry):
        """Make the metrics in a registry."""
        counter = partial(Counter, namespace="matjip", registry=registry)
        gauge = partial(Gauge, namespace="matjip", registry=registry)
        histogram = partial(Histogram, namespace="matjip", registry=registry)
        model = ["model"]
        self._rows = histogram("batch_rows", "Windows of one batch.", model, buckets=_ROWS)
        self._size = histogram("batch_tokens", "Tokens of one batch.", model, buckets=_TOKENS)
        self._padding = histogram(
            "batch_padding_ratio", "Padded over real tokens of one batch.", model, buckets=_RATIO
        )
        self._real = counter("tokens_real", "Tokens computed.", model)
        self._padded = counter("tokens_padded", "Tokens computed, padding included.", model)
        self._wait = histogram(
            "queue_age_seconds",
            "Of each batch, how long its oldest window waited.",
            model,
            buckets=_SECONDS,
        )
        self._compute = histogram(
            "batch_seconds", "Seconds of one batch in the engine.", model, buckets=_SECONDS
        )
        self._turned_away = counter(
            "batch_rejected", "Requests turned away or given up.", ["model", "reason"]
        )
        self._memory = counter("out_of_memory", "Batches that did not fit in memory.", model)
        self._retries = counter("batch_retries", "Windows run again.", ["model", "reason"])
        self._deaths = counter("worker_deaths", "Compute threads that died or hung.", model)
        self._texts = gauge("queue_texts", "Texts of open requests.", model)
        self._waiting_rows = gauge("queue_windows", "Windows that wait for a batch.", model)
        self._waiting_tokens = gauge("queue_tokens", "Tokens that wait for a batch.", model)
        self._series: dict[str, _Series] = {}
        self._queues: dict[str, tuple[int, int, int]] = {}
        self._admission = {
            "in_flight": gauge("admission_batches", "Batches in flight."),
            "waiting": gauge("admission_waiting", "Batches that wait to be admitted."),
            "limit_batches": gauge("admission_limit_batches", "Batches that may be in flight."),
            "in_flight_bytes": gauge("admission_bytes", "Predicted bytes in flight."),
            "limit_bytes": gauge("admission_limit_bytes", "Predicted bytes that may be in flight."),
            "free_bytes": gauge("memory_free_bytes", "Free memory, as last read."),
        }
        self._state: AdmissionState | None = None

    def show(self, model: str) -> None:
        """Make a runner's series, so that they stand at zero before its first batch."""
        for metric in (self._memory, self._deaths):
            metric.labels(model)
        # Finding a labelled series costs more than counting in it, and it is done for every batch.
        self._series[model] = _Series(
            rows=self._rows.labels(model),
            size=self._size.labels(model),
            padding=self._padding.labels(model),
            real=self._real.labels(model),
            padded=self._padded.labels(model),
            wait=self._wait.labels(model),
            compute=self._compute.labels(model),
        )

    def write_gauges(self) -> None:
        """Bring the gauges up to what was told last; once a scrape, not once a text."""
        for model, (texts, rows, tokens) in self._queues.items():
            self._texts.labels(model).set(texts)
            self._waiting_rows.labels(model).set(rows)
            self._waiting_tokens.labels(model).set(tokens)
        if self._state is not None:
            for name, metric in self._admission.items():
                metric.set(getattr(self._state, name))

    def batch_done(
        self,
        *,
        model: str,
        rows: int,
        tokens: int,
        padded_tokens: int,
        wait_s: float,
        seconds: float,
    ) -> None:
        """See ``BatchObserver``."""
        if model not in self._series:
            self.show(model)
        series = self._series[model]
        series.rows.observe(rows)
        series.size.observe(tokens)
        series.padding.observe(padded_tokens / max(tokens, 1))
        series.real.inc(tokens)
        series.padded.inc(padded_tokens)
        series.wait.observe(wait_s)
        series.compute.observe(seconds)

    def rejected(self, *, model: str, reason: RejectReason) -> None:
        """See ``BatchObserver``."""
        self._turned_away.labels(model, reason).inc()

    def out_of_memory(self, *, model: str, rows: int, tokens: int) -> None:
        """See ``BatchObserver``."""
        self._memory.labels(model).inc()

    def retried(self, *, model: str, rows: int, reason: RetryReason) -> None:
        """See ``BatchObserver``."""
        self._retries.labels(model, reason).inc(rows)

    def worker_died(self, *, model: str) -> None:
        """See ``BatchObserver``."""
        self._deaths.labels(model).inc()

    def queue(self, *, model: str, texts: int, rows: int, tokens: int) -> None:
        """See ``BatchObserver``."""
        self._queues[model] = (texts, rows, tokens)

    def admission(self, *, state: AdmissionState) -> None:
        """See ``BatchObserver``."""
        self._state = state
