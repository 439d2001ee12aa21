"""What a gateway is made of, and its working day: start, watch, swap, drain, stop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain

from fastapi import FastAPI

from data.errors import SettingsError
from serving.deployment import Deployment, read_deployment
from serving.embedding_deployment import EmbeddingDeployment, read_embedding_deployment
from serving.gateway.answering import Gateway
from serving.gateway.embedding import EmbeddingGateway
from serving.gateway.experiment_watch import ExperimentWatch
from serving.gateway.experiments import Experiments
from serving.gateway.guardrails import Guarded
from serving.gateway.language import LanguageGateway
from serving.gateway.language_arms import LoadEngine
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.phases import serves_phases
from serving.gateway.record import Record
from serving.gateway.reloading import DeploymentFiles, Reloader, Watched
from serving.gateway.route_watch import RouteWatch
from serving.gateway.settings import ServingSettings
from serving.gateway.sharing import Shared
from serving.language_deployment import LanguageDeployment, read_language_deployment


@dataclass(frozen=True)
class Parts:
    """The parts; the gateway answers with at least one of its three kinds of model."""

    settings: ServingSettings
    files: DeploymentFiles
    record: Record
    routes: RouteWatch
    shared: Shared
    metrics: GatewayMetrics
    gateway: Gateway | None
    embedding: EmbeddingGateway | None
    language: LanguageGateway | None
    experiments: ExperimentWatch
    experiments_api: Experiments

    def models(self) -> list[Gateway | EmbeddingGateway | LanguageGateway]:
        """Those of the three that there are."""
        kinds = (self.gateway, self.embedding, self.language)
        return [part for part in kinds if part is not None]

    @asynccontextmanager
    async def at_work(self, _app: FastAPI) -> AsyncIterator[None]:
        """The app's lifespan."""
        reloader = Reloader(
            self._watched(), metrics=self.metrics, poll_s=self.settings.reload_poll_s
        )
        reloader.listen()  # first: a SIGHUP that nobody listens to ends the process
        await self.record.open()
        for part in self.models():
            await part.start()
        watching = (
            self.record.watch(),
            self.routes.run(),
            reloader.run(),
            self.experiments.run(),
        )
        watches = [asyncio.create_task(each) for each in watching]
        yield
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        await self.experiments.close()
        for part in self.models():
            await part.stop()
        await self.routes.close()
        await self.record.close()
        await asyncio.to_thread(self.experiments_api.close)

    def reasons(self) -> list[str]:
        """Why the gateway should get no traffic; empty if it may."""
        return [*chain(*(part.reasons() for part in self.models())), *self.record.reasons()]

    def warnings(self) -> list[str]:
        """What went wrong without keeping it from answering."""
        stages = [part.stage.warnings() for part in (self.gateway, self.embedding) if part]
        language = self.language.warnings() if self.language else []
        others = (self.routes.warnings(), self.experiments.warnings())
        return [*chain(*stages), *language, *chain(*others)]

    def _watched(self) -> Sequence[Watched]:
        watched = []
        sentiment, embedding = self.files.sentiment, self.files.embedding
        if self.gateway is not None and sentiment is not None:
            stage = self.gateway.stage
            watched.append(
                Watched(
                    "sentiment", sentiment, lambda: stage.swap(lambda: read_deployment(sentiment))
                )
            )
        if self.embedding is not None and embedding is not None:
            other = self.embedding.stage
            watched.append(
                Watched(
                    "embedding",
                    embedding,
                    lambda: other.swap(lambda: read_embedding_deployment(embedding)),
                )
            )
        speaker = self.files.language
        if self.language is not None and speaker is not None:
            third = self.language.stage
            watched.append(
                Watched(
                    "language",
                    speaker,
                    lambda: third.swap(lambda: read_language_deployment(speaker)),
                )
            )
        return watched


def make_parts(
    settings: ServingSettings,
    deployment: Deployment | None,
    embedding: EmbeddingDeployment | None,
    language: LanguageDeployment | None,
    *,
    files: DeploymentFiles,
    mask: Callable[[str], str],
    load: LoadEngine,
) -> Parts:
    """The parts of a gateway; see ``create_app``.

    Raises:
        SettingsError: there is nothing to serve.
    """
    if deployment is None and embedding is None and language is None:
        raise SettingsError(
            "there is nothing to serve; name a --deployment, an --embedding-deployment, a "
            "--language-deployment, or several of them"
        )
    metrics = GatewayMetrics()
    record = Record(settings)
    metrics.store_failing.set_function(lambda: float(bool(record.reasons())))
    routes = RouteWatch(settings, metrics)
    shared = Shared(settings, metrics)
    gateway, vectors, speaker = None, None, None
    if deployment is not None:
        gateway = Gateway(
            settings,
            deployment,
            record=record,
            routes=routes,
            shared=shared,
            metrics=metrics,
            mask=mask,
        )
        metrics.show_arms(deployment)
    if embedding is not None:
        vectors = EmbeddingGateway(settings, embedding, shared=shared, metrics=metrics, mask=mask)
    if language is not None:
        speaker = LanguageGateway(
            settings,
            language,
            record=record,
            routes=routes,
            metrics=metrics,
            mask=mask,
            load=load,
        )
        metrics.show_arms(language)
    watch = ExperimentWatch(
        settings, served=lambda: _guarded(gateway, speaker), registry=metrics.registry
    )
    api = Experiments(
        settings.store_url,
        writable=settings.admin_token is not None,
        opens_phases=serves_phases(settings.live, files.with_arms),
    )
    return Parts(
        settings, files, record, routes, shared, metrics, gateway, vectors, speaker, watch, api
    )


def _guarded(gateway: Gateway | None, speaker: LanguageGateway | None) -> list[Guarded]:
    """The deployments of arms that answer now."""
    served = []
    if gateway is not None and gateway.stage.live is not None:
        served.append(Guarded(gateway.stage.live.deployment, gateway.routing.force))
    if speaker is not None and speaker.stage.live is not None:
        served.append(Guarded(speaker.stage.live.deployment, speaker.routing.force))
    return served
