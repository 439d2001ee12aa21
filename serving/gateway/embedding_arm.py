"""The embedding model of a deployment, loaded and checked, behind its runner."""

import asyncio
from dataclasses import dataclass
from typing import Final

from data.errors import ArtifactError
from data.manifest import read_manifest
from serving.batching.runner import BatchRunner
from serving.embedder import Embedder
from serving.embedding_deployment import EmbeddingDeployment
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import load_embedder
from serving.gateway.embedding_model import Embedded, EmbeddingModel
from serving.gateway.live import Live
from serving.gateway.settings import AUTO, ServingSettings
from serving.gateway.sharing import Shared
from serving.model_signature import check_before_loading

_WARM_UP: Final = "맛있어요"


@dataclass(frozen=True)
class LoadedEmbedder:
    """An embedding model in memory."""

    deployment: EmbeddingDeployment
    model: EmbeddingModel
    runner: BatchRunner[Embedded]
    warning: str | None = None

    @property
    def model_version(self) -> str:
        """What callers and metrics know the model by."""
        return self.deployment.model_version

    def reasons(self) -> list[str]:
        """Why it cannot answer now; empty if it can."""
        return self.runner.reasons()

    async def drain(self, timeout_s: float) -> None:
        """Answer what is open, and stop the runner."""
        await self.runner.drain(timeout_s)


async def load_embedding(
    deployment: EmbeddingDeployment, shared: Shared
) -> Live[EmbeddingDeployment, LoadedEmbedder]:
    """Load a deployment's model, start its runner, and have it answer once.

    Raises:
        ArtifactError: a file is missing or altered, it is another model than was deployed, or not
            the one that was signed.
        EngineError: the engine cannot load the model, or does not answer.
    """
    embedder = await asyncio.to_thread(_load, deployment, shared.settings)
    model, chosen = EmbeddingModel(embedder), embedder.chosen
    runner = await shared.start_runner(
        model,
        name=deployment.model_version,
        chosen=chosen,
        warm_up=_WARM_UP,
    )
    warning = chosen.warning if chosen else None
    return Live(deployment, {"champion": LoadedEmbedder(deployment, model, runner, warning)})


def _load(deployment: EmbeddingDeployment, settings: ServingSettings) -> Embedder:
    check_before_loading(deployment.folder, settings.verify_key)
    found = read_manifest(deployment.folder, EMBEDDING_KIND).digest
    if found != deployment.manifest_digest:
        raise ArtifactError(
            f"embedding model {deployment.model_version}: {str(deployment.folder)!r} holds the "
            f"model {found[:12]!r}, the deployment names {deployment.manifest_digest[:12]!r}; "
            "deploy again"
        )
    engine = None if settings.embedding_engine == AUTO else settings.embedding_engine
    return load_embedder(deployment.folder, engine=engine, threads=settings.engine_threads)
