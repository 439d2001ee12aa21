"""Champion and challenger among language models, from the registry to what the gateway serves."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from data.errors import ExperimentError, RegistryError
from data.manifest import canonical_digest, write_manifest
from serving.deployment import ARMS, ArmName
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
from serving.registry.versions import download, resolve

DEPLOYMENT_NAME: Final = "language_deployment.json"


def deploy_language(
    registry: Registry,
    *,
    name: str,
    share: float,
    work: Path,
    out: Path,
    base_url: str = "",
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

    Raises:
        RegistryError: there is no champion, a model is not what was registered, or MLflow is away.
        ExperimentError: the share is not one, or an arm has no server.
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
        )
        for found in fetched
    )
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


def _server(base_url: str, arm: ArmName) -> str:
    if not base_url.startswith(tuple(f"{name}=" for name in ARMS)):
        return base_url
    servers = dict(part.partition("=")[::2] for part in base_url.split())
    if arm not in servers:
        raise ExperimentError(
            f"base_url={base_url!r} names no server of the {arm}; write "
            "'champion=http://… challenger=http://…', or one address for both"
        )
    return servers[arm]
