"""Champion and challenger among language models, from the registry to what the gateway serves."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from data.errors import EngineError, ExperimentError, RegistryError
from data.manifest import canonical_digest, write_manifest
from serving.dealing import ArmName
from serving.engines.vllm_server import served_models
from serving.language_deployment import (
    Endpoint,
    InProcessEndpoint,
    LanguageArm,
    LanguageDeployment,
    OpenAIEndpoint,
    write_language_deployment,
)
from serving.registry.arms import DEPLOYMENT_KIND, FetchedArm, deployment_facts, fetch_arms
from serving.registry.connection import Registry, connect
from serving.registry.evidence import ALIASES
from serving.registry.versions import download, resolve

DEPLOYMENT_NAME: Final = "language_deployment.json"
_ANSWER_TOKENS: Final = 1_024


def deploy_language(
    registry: Registry,
    *,
    name: str,
    share: float,
    work: Path,
    out: Path,
    base_url: str = "",
    api_key: str | None = None,
) -> LanguageDeployment:
    """Resolve both aliases once, fetch both models, and write the deployment.

    Args:
        registry: where from.
        name: the registered model.
        share: the challenger's share of the units, 0 to 1.
        work: folder that keeps fetched models from one run to the next.
        out: folder of the artifact: ``language_deployment.json``, ``models/``.
        base_url: of the vLLM that serves both arms, or ``champion=URL challenger=URL`` of two; a
            server calls its model ``name-arm``. Empty, the gateway loads the models itself.
        api_key: what those servers want, if anything.

    Raises:
        RegistryError: there is no champion, a model is not what was registered, or MLflow is away.
        ExperimentError: the share is not one, or an arm has no server, or one that does not serve
            its model. A server that is not up yet is believed.
    """
    fetched = fetch_arms(registry, name=name, share=share, work=work, out=out)
    arms = tuple(
        LanguageArm(
            name=found.name,
            model_name=found.version.name,
            version=found.version.version,
            manifest_digest=found.version.tags["manifest_digest"],
            evidence_id=found.version.tags["evidence_id"],
            share=found.share,
            endpoint=_endpoint(found, base_url),
            max_answer_tokens=answer_room(out / found.folder, found.name),
        )
        for found in fetched
    )
    for arm in arms:
        if isinstance(arm.endpoint, OpenAIEndpoint):
            _check_served(arm.endpoint, arm.name, api_key)
    deployment = LanguageDeployment(
        experiment_id=f"{name}-{'-vs-'.join(arm.version for arm in reversed(arms))}",
        salt=canonical_digest([[arm.name, arm.evidence_id] for arm in arms])[:32],
        arms=arms,
        created_at=datetime.now(UTC),
    )
    write_language_deployment(out / DEPLOYMENT_NAME, deployment)
    write_manifest(out, DEPLOYMENT_KIND, deployment_facts(deployment))
    return deployment


def served_language_model(tracking_uri: str, name: str, alias: str, work: Path) -> Path:
    """The folder of what an alias names, fetched with its hashes checked.

    Raises:
        RegistryError: the alias names nothing, the model is not what was registered, or MLflow is
            away.
    """
    registry = connect(tracking_uri)
    version = resolve(registry, name, alias)
    if version is None:
        raise RegistryError(
            f"{name}@{alias} names nothing in {registry.uri!r}: no language model has passed its "
            "gate yet; run `make demo` or `make language`, or name another --alias"
        )
    return download(registry, version, work)


def served_name(model_name: str, arm: str) -> str:
    """What a server of its own calls an arm's model."""
    return f"{model_name}-{arm}"


def _endpoint(found: FetchedArm, base_url: str) -> Endpoint:
    if not base_url:
        return InProcessEndpoint(folder=found.folder)
    return OpenAIEndpoint(
        base_url=_server(base_url, found.name),
        model=served_name(found.version.name, found.name),
    )


def answer_room(folder: Path, arm: ArmName) -> int:
    """What an answer may take, in tokens: a prompt keeps at least half of the model's context.

    Raises:
        RegistryError: the model does not say how long its context is.
    """
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
        context = int(json.loads(text)["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegistryError(
            f"the {arm}'s config.json does not say its max_position_embeddings: {error!r}; "
            "register a whole model"
        ) from error
    return min(_ANSWER_TOKENS, context // 2)


def _check_served(endpoint: OpenAIEndpoint, arm: ArmName, api_key: str | None) -> None:
    try:
        served = served_models(endpoint.base_url, api_key)
    except EngineError:
        return  # it may start after the deployment is written; the gateway's /ready says how it is
    if endpoint.model not in served:
        raise ExperimentError(
            f"the {arm}'s server {endpoint.base_url!r} serves {served!r}, not {endpoint.model!r}; "
            f'start it with `make serve-llm ARGS="--alias {arm}"`, and name a server for each arm: '
            "base_url='champion=http://… challenger=http://…'"
        )


def _server(base_url: str, arm: ArmName) -> str:
    if not base_url.startswith(tuple(f"{name}=" for name in ALIASES)):
        return base_url
    servers = dict(part.partition("=")[::2] for part in base_url.split())
    if arm not in servers:
        raise ExperimentError(
            f"base_url={base_url!r} names no server of the {arm}; write "
            "'champion=http://… challenger=http://…', or one address for both"
        )
    return servers[arm]
