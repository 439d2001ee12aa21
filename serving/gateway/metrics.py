"""The gateway's Prometheus metrics, in a registry of their own: apps share nothing."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.deployment import Deployment
from serving.language_deployment import LanguageDeployment

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_LANGUAGE_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LANGUAGE: Final = ("route", "arm", "status")


class GatewayMetrics:
    """Every metric the gateway keeps."""

    def __init__(self, deployments: Sequence[Deployment | LanguageDeployment]):
        """Make them all, so that they show zero before the first request."""
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="matjip", registry=self.registry)
        gauge = partial(Gauge, namespace="matjip", registry=self.registry)
        histogram = partial(Histogram, namespace="matjip", registry=self.registry, buckets=_SECONDS)
        self.requests = counter("requests", "Requests, by route and status.", ["route", "status"])
        self.seconds = histogram(
            "request_seconds", "Seconds from a request's head to its answer's.", ["route"]
        )
        self.engine_seconds = histogram("engine_seconds", "Seconds in an arm's engine.", ["arm"])
        self.inside = gauge("requests_inside", "Analyse requests worked on or waiting.")
        self.items = counter("items", "Reviews, by arm and status.", ["arm", "status"])
        self.errors = counter("errors", "Errors, by stable code.", ["code"])
        self.rejected = counter("rejected", "Requests turned away, by code.", ["code"])
        self.exposures = counter("exposures", "Exposures committed, by arm.", ["arm"])
        self.outcomes = counter("outcomes", "Feedback, by what became of it.", ["result"])
        served = gauge(
            "deployment_share",
            "Share of the units, by arm.",
            ["arm", "model", "version", "deployment_id"],
        )
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
        for deployment in deployments:
            for arm in deployment.arms:
                served.labels(arm.name, arm.model_name, arm.version, deployment.deployment_id).set(
                    arm.share
                )
                self.exposures.labels(arm.name)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
