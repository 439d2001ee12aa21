"""An experiment's arms: what their models name, fetched, and the deployment of one of its phases.

A model is resolved once, when the experiment starts: its later phases serve the versions of the
first, whatever has become of an alias meanwhile.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from data.errors import ExperimentError, RegistryError
from data.manifest import read_manifest
from serving.deployment import Arm, Deployment
from serving.experiments.lifecycle import Lifecycle
from serving.experiments.routes import DeploymentKind
from serving.experiments.specification import ExperimentArm, ExperimentSpecification
from serving.language_deployment import (
    InProcessEndpoint,
    LanguageArm,
    LanguageDeployment,
    OpenAIEndpoint,
)
from serving.language_folder import LANGUAGE_MODEL_KIND
from serving.model_folder import MODEL_KIND
from serving.registry.arms import place_model
from serving.registry.connection import Registry, ResolvedVersion, locked
from serving.registry.evidence import ROLLED_BACK_TAG
from serving.registry.language_deploy import answer_room
from serving.registry.versions import READY, STATUS_TAG, get_version, resolve

PhaseDeployment = Deployment | LanguageDeployment
Versions = Mapping[str, ResolvedVersion]
"""Arm → the version that it is."""
_KINDS: Final[dict[str, DeploymentKind]] = {
    MODEL_KIND: "sentiment",
    LANGUAGE_MODEL_KIND: "language",
}
_SERVER, _SERVED = "base-url", "served-model"


def resolve_arms(registry: Registry, specification: ExperimentSpecification) -> Versions:
    """What the arms' models name now, all at one moment.

    Raises:
        RegistryError: a model or an alias names nothing, or what may not serve.
        ExperimentError: two arms are the same model.
    """
    with locked(registry):
        versions = {arm.name: _resolved(registry, arm) for arm in specification.arms}
    for arm in specification.arms:
        _check_may_serve(arm, versions[arm.name])
    _check_differ(specification, versions)
    return versions


def kept_arms(registry: Registry, content: Mapping[str, Any]) -> Versions:
    """The versions that an earlier phase's deployment serves.

    Args:
        registry: where they are.
        content: of that deployment's file.

    Raises:
        RegistryError: one of them is no longer there.
    """
    return {
        arm["name"]: get_version(registry, arm["model_name"], arm["version"])
        for arm in content["arms"]
    }


def moved_aliases(
    registry: Registry, specification: ExperimentSpecification, content: Mapping[str, Any]
) -> list[str]:
    """A sentence for each alias that names another version than the one that serves for it.

    Raises:
        RegistryError: MLflow is away.
    """
    served = {arm["name"]: arm["version"] for arm in content["arms"]}
    sentences = []
    for arm in specification.arms:
        name, at, alias = arm.model.removeprefix("models:/").partition("@")
        now = resolve(registry, name, alias) if at else None
        if at and (now is None or now.version != served[arm.name]):
            sentences.append(
                f"{name}@{alias} names version {now and now.version!r} by now; arm {arm.name!r} "
                f"stays {served[arm.name]!r}, which it named when the experiment started"
            )
    return sentences


def phase_deployment(
    registry: Registry,
    here: Lifecycle,
    versions: Versions,
    *,
    version: int,
    salt: str,
    work: Path,
    live: Path,
) -> PhaseDeployment:
    """The deployment of the phase that is open, its models fetched into the live folder.

    Args:
        registry: where from.
        here: the experiment, with that phase open.
        versions: what each arm is.
        version: of the specification, in the catalogue.
        salt: what units are hashed with.
        work: folder that keeps fetched models from one run to the next.
        live: folder that the gateway watches; the arms' folders are relative to it.

    Raises:
        RegistryError: a model is not what was registered, or MLflow is away.
        ExperimentError: a model is of no kind that answers, the arms are of two kinds, or one is
            asked with what its kind does not take.
    """
    specification = here.specification
    plan = here.plan(version)
    shares = specification.shares(here.opened[-1].phase)
    folders = {
        arm.name: place_model(registry, versions[arm.name], work=work, out=live)
        for arm in specification.arms
    }
    kind = _kind(folders)
    arms = [
        _arm(kind, arm, versions[arm.name], folders[arm.name], live, shares[arm.name])
        for arm in specification.arms
    ]
    values = {
        "experiment_id": specification.name,
        "salt": salt,
        "arms": arms,
        "created_at": datetime.now(UTC),
        "phase": plan,
    }
    deployed = Deployment if kind == "sentiment" else LanguageDeployment
    return deployed.model_validate(values)


def _resolved(registry: Registry, arm: ExperimentArm) -> ResolvedVersion:
    named = arm.model.removeprefix("models:/")
    name, at, alias = named.partition("@")
    if not at:
        name, _, number = named.rpartition("/")
        return get_version(registry, name, number)
    found = resolve(registry, name, alias)
    if found is None:
        raise RegistryError(
            f"arm {arm.name!r}: {arm.model!r} names nothing in {registry.uri!r}; give that alias "
            f"to a version, or name a version: 'models:/{name}/1'"
        )
    return found


def _check_may_serve(arm: ExperimentArm, version: ResolvedVersion) -> None:
    problems = []
    if version.tags.get(STATUS_TAG) != READY:
        problems.append(f"lacks the tag {STATUS_TAG}={READY}, so matjip did not register it whole")
    if version.tags.get("gate_verdict") != "pass":
        problems.append(f"its gate said {version.tags.get('gate_verdict')!r}, not 'pass'")
    if version.tags.get(ROLLED_BACK_TAG):
        problems.append(f"was rolled back by {version.tags[ROLLED_BACK_TAG]!r}")
    if problems:
        raise RegistryError(
            f"arm {arm.name!r}: version {version.version!r} of {version.name!r} may answer nobody: "
            f"{'; '.join(problems)}. Name a version that passed its gate"
        )


def _check_differ(specification: ExperimentSpecification, versions: Versions) -> None:
    """Refuse arms that would answer alike; two prompts or servers of one model may differ."""
    met: dict[tuple[object, ...], str] = {}
    for arm in specification.arms:
        version = versions[arm.name]
        same = (
            version.tags.get("manifest_digest"),
            arm.prompt,
            tuple(sorted(arm.parameters.items())),
        )
        other = met.setdefault(same, arm.name)
        if other != arm.name:
            raise ExperimentError(
                f"arms {other!r} and {arm.name!r} are the same model: {arm.model!r} is version "
                f"{version.version!r} of {version.name!r}, whose files are those of "
                f"{versions[other].version!r}; name another model for one of them"
            )


def _kind(folders: Mapping[str, Path]) -> DeploymentKind:
    found = {name: read_manifest(folder).kind for name, folder in folders.items()}
    strange = {name: kind for name, kind in found.items() if kind not in _KINDS}
    if strange or len(set(found.values())) > 1:
        raise ExperimentError(
            f"the arms' models are {found!r}; compare models of one kind, of {sorted(_KINDS)!r}"
        )
    return _KINDS[next(iter(found.values()))]


def _arm(
    kind: DeploymentKind,
    arm: ExperimentArm,
    version: ResolvedVersion,
    folder: Path,
    live: Path,
    share: float,
) -> Arm | LanguageArm:
    inside = folder.relative_to(live)
    known: dict[str, Any] = {
        "name": arm.name,
        "model_name": version.name,
        "version": version.version,
        "manifest_digest": version.tags["manifest_digest"],
        "evidence_id": version.tags["evidence_id"],
        "share": share,
    }
    if arm.prompt is not None:
        raise ExperimentError(
            f"arm {arm.name!r} has prompt={arm.prompt!r}, but models answer with the prompts that "
            "they were trained with; leave it out, and register a model trained with that prompt"
        )
    if kind == "sentiment":
        if arm.parameters:
            raise ExperimentError(
                f"arm {arm.name!r} has parameters={arm.parameters!r}, but a classifier takes none; "
                "leave them out, and name another model to compare with"
            )
        return Arm(**known, folder=inside)
    return LanguageArm(
        **known,
        endpoint=_endpoint(arm, inside),
        max_answer_tokens=answer_room(folder, arm.name),
    )


def _endpoint(arm: ExperimentArm, inside: Path) -> InProcessEndpoint | OpenAIEndpoint:
    if not arm.parameters:
        return InProcessEndpoint(folder=inside)
    if set(arm.parameters) != {_SERVER, _SERVED}:
        raise ExperimentError(
            f"arm {arm.name!r} has parameters {sorted(arm.parameters)!r}; a language model's are "
            f"{_SERVER!r} and {_SERVED!r} of the server that runs it, or none"
        )
    try:
        return OpenAIEndpoint(
            base_url=str(arm.parameters[_SERVER]), model=str(arm.parameters[_SERVED])
        )
    except ValidationError as error:
        said = "; ".join(line["msg"] for line in error.errors())
        raise ExperimentError(
            f"arm {arm.name!r} has {_SERVER}={arm.parameters[_SERVER]!r}: {said}"
        ) from error
