"""The language models of a deployment: each arm's engine, and the server behind it."""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.errors import ArtifactError
from data.manifest import read_manifest
from serving.dealing import ArmName
from serving.engines.chat import ChatEngine
from serving.gateway.live import Live
from serving.gateway.settings import ServingSettings
from serving.gateway.upstream import Upstream
from serving.language_deployment import (
    InProcessEndpoint,
    LanguageArm,
    LanguageDeployment,
    OpenAIEndpoint,
)
from serving.language_folder import ADAPTER_KIND, LANGUAGE_MODEL_KIND
from serving.model_signature import check_before_loading

LoadEngine = Callable[[LanguageArm, ServingSettings], ChatEngine]


@dataclass(frozen=True)
class LoadedLanguageArm:
    """An arm at work.

    Attributes:
        arm: as it was deployed.
        engine: answers the prompts of a summary.
        upstream: what a chat is passed on to; None where the engine answers it.
    """

    arm: LanguageArm
    engine: ChatEngine
    upstream: Upstream | None

    @property
    def model_version(self) -> str:
        """What the store knows the model by."""
        return self.arm.model_version

    @property
    def warning(self) -> str | None:
        """None: a server that is down is a state of ``/ready``, and an engine has no other."""
        return None

    def reasons(self) -> Sequence[str]:
        """None: an arm that cannot answer fails or degrades its own answers, and they are stored.

        Were it a reason, a server that is down would take the control's answers away too.
        """
        return ()

    async def drain(self, _timeout_s: float) -> None:
        """Let go of connections and workers; whoever waited for answers has them."""
        if self.upstream is not None:
            await self.upstream.close()
        for name in ("aclose", "close"):
            close = getattr(self.engine, name, None)
            if close is not None:
                closed = close()
                if inspect.isawaitable(closed):
                    await closed
                return


async def load_language_arms(
    deployment: LanguageDeployment, settings: ServingSettings, load: LoadEngine
) -> Live[LanguageDeployment, LoadedLanguageArm]:
    """Load every arm's engine.

    Raises:
        ArtifactError: a file is missing or altered, or it is another model than was deployed.
        EngineError: an engine cannot load its model.
    """
    arms: dict[ArmName, LoadedLanguageArm] = {}
    try:
        for arm in deployment.arms:
            arms[arm.name] = await asyncio.to_thread(load_language_arm, arm, settings, load)
    except BaseException:
        await asyncio.gather(*(loaded.drain(0.0) for loaded in arms.values()))
        raise
    return Live(deployment, arms)


def load_language_arm(
    arm: LanguageArm, settings: ServingSettings, load: LoadEngine
) -> LoadedLanguageArm:
    """Load an arm's engine, once.

    Raises:
        ArtifactError: a file is missing or altered, it is another model than was deployed, or not
            the one that was signed.
        EngineError: the engine cannot load it.
        SettingsError: the key that signatures are checked with is none.
    """
    upstream = Upstream(arm.endpoint, settings) if arm.endpoint.kind == "openai" else None
    return LoadedLanguageArm(arm, load(arm, settings), upstream)


def load_engine(arm: LanguageArm, settings: ServingSettings) -> ChatEngine:
    """The engine of an arm's endpoint; see ``load_language_arm`` for the errors."""
    if isinstance(arm.endpoint, OpenAIEndpoint):
        from serving.engines.vllm_server import Patience, VllmServerEngine

        return VllmServerEngine(
            arm.endpoint.base_url,
            arm.endpoint.model,
            api_key=settings.upstream_api_key,
            patience=Patience(
                timeout_s=settings.language_timeout_s, connect_s=settings.upstream_connect_s
            ),
        )
    check_before_loading(arm.endpoint.folder, settings.verify_key)
    if arm.endpoint.adapter is not None:
        check_before_loading(arm.endpoint.adapter, settings.verify_key)
    _check_digest(arm, arm.endpoint)
    from serving.engines.chat_transformers import TransformersChatEngine

    return TransformersChatEngine.load(
        arm.endpoint.folder, adapter=arm.endpoint.adapter, threads=settings.engine_threads
    )


def _check_digest(arm: LanguageArm, endpoint: InProcessEndpoint) -> None:
    folder, kind = endpoint.folder, LANGUAGE_MODEL_KIND
    if endpoint.adapter is not None:
        folder, kind = endpoint.adapter, ADAPTER_KIND
    found = read_manifest(folder, kind).digest
    if found != arm.manifest_digest:
        raise ArtifactError(
            f"{arm.name} {arm.model_version}: {str(folder)!r} holds the model {found[:12]!r}, the "
            f"deployment names {arm.manifest_digest[:12]!r}; deploy again"
        )
