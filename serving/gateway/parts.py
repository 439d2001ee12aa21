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
from serving.gateway.experiments import Experiments
from serving.gateway.language import LanguageGateway
from serving.gateway.language_arms import LoadEngine
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.phases import serves_phases
from serving.gateway.record import Record
from serving.gateway.reloading import DeploymentFiles, Reloader, Watched
from serving.gateway.settings import ServingSettings
from serving.gateway.sharing import Shared
from serving.language_deployment import LanguageDeployment


@dataclass(frozen=True)
class Parts:
    """The parts; the gateway answers with at least one of its three kinds of model."""

    settings: ServingSettings
    files: DeploymentFiles
    record: Record
    shared: Shared
    metrics: GatewayMetrics
    gateway: Gateway | None
    embedding: EmbeddingGateway | None
    language: LanguageGateway | None
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
        watches = [asyncio.create_task(self.record.watch()), asyncio.create_task(reloader.run())]
        yield
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)
        for part in self.models():
            await part.stop()
        await self.record.close()
        await asyncio.to_thread(self.experiments_api.close)

    def reasons(self) -> list[str]:
        """Why the gateway should get no traffic; empty if it may."""
        return [*chain(*(part.reasons() for part in self.models())), *self.record.reasons()]

    def warnings(self) -> list[str]:
        """What went wrong without keeping it from answering."""
        parts = [part for part in (self.gateway, self.embedding) if part is not None]
        return [warning for part in parts for warning in part.stage.warnings()]

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
    shared = Shared(settings, metrics)
    gateway, vectors, speaker = None, None, None
    if deployment is not None:
        gateway = Gateway(
            settings, deployment, record=record, shared=shared, metrics=metrics, mask=mask
        )
        metrics.show_arms(deployment)
    if embedding is not None:
        vectors = EmbeddingGateway(settings, embedding, shared=shared, metrics=metrics, mask=mask)
    if language is not None:
        speaker = LanguageGateway(
            settings, language, record=record, metrics=metrics, mask=mask, load=load
        )
        metrics.show_arms(language)
    experiments = Experiments(
        settings.store_url,
        writable=settings.admin_token is not None,
        opens_phases=serves_phases(settings.live, files.sentiment),
    )
    return Parts(settings, files, record, shared, metrics, gateway, vectors, speaker, experiments)
