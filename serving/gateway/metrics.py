"""The gateway's Prometheus metrics, in a registry of their own: apps share nothing."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.deployment import Arm, Deployment
from serving.embedding_deployment import EmbeddingDeployment
from serving.gateway.observing import PrometheusObserver
from serving.language_deployment import LanguageArm, LanguageDeployment

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_LANGUAGE_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LANGUAGE: Final = ("route", "arm", "status")


class GatewayMetrics:
    """Every metric the gateway keeps."""

    def __init__(self) -> None:
        """Make them all, so that they show zero before the first request."""
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="matjip", registry=self.registry)
        gauge = partial(Gauge, namespace="matjip", registry=self.registry)
        histogram = partial(Histogram, namespace="matjip", registry=self.registry, buckets=_SECONDS)
        self.requests = counter("requests", "Requests, by route and status.", ["route", "status"])
        self._answered: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self.seconds = histogram(
            "request_seconds", "Seconds from a request's head to its answer's.", ["route"]
        )
        self.stage_seconds = histogram(
            "stage_seconds", "Seconds of a request's stages.", ["route", "stage"]
        )
        self._stages: dict[tuple[str, str], Histogram] = {}
        self.batches = PrometheusObserver(self.registry)
        self.embedded = counter("texts_embedded", "Texts embedded, by model.", ["model"])
        self.swaps = counter(
            "deployment_swaps", "Looks at deployment files, by what came of it.", ["kind", "result"]
        )
        self.inside = gauge("requests_inside", "Analyse requests worked on or waiting.")
        self.items = counter("items", "Reviews, by arm and status.", ["arm", "status"])
        self.errors = counter("errors", "Errors, by stable code.", ["code"])
        self.rejected = counter("rejected", "Requests turned away, by code.", ["code"])
        self.exposures = counter(
            "exposures", "Exposures committed, failures and mirrored ones among them.", ["arm"]
        )
        self.outcomes = counter("outcomes", "Feedback, by what became of it.", ["result"])
        self.store_failing = gauge("store_failing", "1 while the experiment store does not write.")
        self._served = gauge(
            "deployment_share",
            "Share of the units, by arm.",
            ["arm", "model", "version", "deployment_id"],
        )
        self._routes = gauge(
            "everybody_to_arm",
            "1 for the arm that everybody is sent to; 0 throughout where units are dealt.",
            ["kind", "arm", "deployment_id"],
        )
        self.mirrored = counter(
            "shadow_answers", "Items that a shadow's other arms answered.", ["arm", "status"]
        )
        self.not_mirrored = counter(
            "shadow_dropped", "Requests of a shadow that nobody answered again.", ["reason"]
        )
        self.shadow_waiting = gauge("shadow_waiting", "Requests of a shadow that wait.")
        self._shown: dict[type[object], list[tuple[str, ...]]] = {}
        self.language = counter(
            "language_answers", "Language answers, by route, arm and status.", _LANGUAGE
        )
        self.language_seconds = Histogram(
            "language_seconds",
            "Seconds to a language answer, or to its first part where it is streamed.",
            _LANGUAGE[:2],
            namespace="matjip",
            registry=self.registry,
            buckets=_LANGUAGE_SECONDS,
        )
        self._embedding = gauge(
            "embedding_deployment", "1 for the one that answers.", ["model", "deployment_id"]
        )

    def count_stages(self, route: str, seconds: Mapping[str, float]) -> None:
        """Count where a request's time went; each series is looked up once."""
        for stage, took in seconds.items():
            series = self._stages.get((route, stage))
            if series is None:
                series = self._stages[route, stage] = self.stage_seconds.labels(route, stage)
            series.observe(took)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer whose head was sent; as above."""
        series = self._answered.get((route, status))
        if series is None:
            series = self.requests.labels(route, str(status)), self.seconds.labels(route)
            self._answered[route, status] = series
        series[0].inc()
        series[1].observe(seconds)

    def show_arms(self, deployment: Deployment | LanguageDeployment) -> None:
        """Say who answers now; the arms that answered before are no longer shown."""
        for labels in self._shown.pop(type(deployment), []):
            self._served.remove(*labels)
        shown: list[tuple[str, ...]] = []
        arms: Sequence[Arm | LanguageArm] = deployment.arms
        for arm in arms:
            shown.append((arm.name, arm.model_name, arm.version, deployment.deployment_id))
            self._served.labels(*shown[-1]).set(arm.share)
            self.exposures.labels(arm.name)
        self._shown[type(deployment)] = shown

    def show_routes(self, shown: Iterable[tuple[str, str, str, float]]) -> None:
        """Say who answers everybody: (kind, arm, deployment id, 1 or 0) of every arm."""
        self._routes.clear()
        for kind, arm, deployment_id, value in shown:
            self._routes.labels(kind, arm, deployment_id).set(value)

    def show_embedding(self, deployment: EmbeddingDeployment) -> None:
        """Say which embedding model answers now."""
        self._embedding.clear()
        self._embedding.labels(deployment.model_version, deployment.deployment_id).set(1)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        self.batches.write_gauges()
        return generate_latest(self.registry)
