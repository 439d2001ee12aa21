"""What serves: champion and challenger, resolved once and fetched as they were signed."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from data.errors import ExperimentError, RegistryError
from serving.dealing import ArmName
from serving.deployment import SharedArm
from serving.model_signature import VERIFY_KEY_NAME, verification_key
from serving.registry.artifact_store import link_or_copy
from serving.registry.connection import Registry, ResolvedVersion, locked
from serving.registry.versions import download, resolve

DEPLOYMENT_KIND: Final = "deployment"


@dataclass(frozen=True)
class FetchedArm:
    """One model that serves.

    Attributes:
        name: champion or challenger.
        version: what the alias named.
        folder: the model, relative to the deployment's own folder.
        share: of the units.
    """

    name: ArmName
    version: ResolvedVersion
    folder: Path
    share: float


class Deployed(Protocol):
    """What every deployment says of itself."""

    @property
    def deployment_id(self) -> str:
        """Of what it says."""

    @property
    def experiment_id(self) -> str:
        """Whose units are counted together."""

    @property
    def arms(self) -> tuple["VersionedArm", ...]:
        """Champion first."""


class VersionedArm(SharedArm, Protocol):
    """An arm that came from the registry."""

    @property
    def model_name(self) -> str:
        """The registered model."""

    @property
    def version(self) -> str:
        """Its version."""


def fetch_arms(
    registry: Registry, *, name: str, share: float, work: Path, out: Path
) -> list[FetchedArm]:
    """Resolve both aliases at one moment and fetch what they name; champion first.

    Args:
        registry: where from.
        name: the registered model.
        share: the challenger's share of the units, 0 to 1; without one the champion takes all.
        work: folder that keeps fetched models from one run to the next.
        out: the deployment's folder; models lie in ``models/`` inside.

    Raises:
        RegistryError: there is no champion, a model is not what was registered, or MLflow is away.
        ExperimentError: the share is not one.
    """
    if not 0.0 <= share <= 1.0:
        raise ExperimentError(f"share={share!r} is not a share of the traffic; give 0 to 1")
    with locked(registry):  # both aliases as they stand at one moment
        champion = resolve(registry, name, "champion")
        challenger = resolve(registry, name, "challenger")
    if champion is None:
        raise RegistryError(
            f"{name!r} has no champion in {registry.uri!r}: no model has passed its gate yet; "
            "register one that does"
        )
    arms = [_fetched(registry, "champion", champion, 1.0 - share if challenger else 1.0, work, out)]
    if challenger is not None:
        arms.append(_fetched(registry, "challenger", challenger, share, work, out))
    return arms


def deployment_facts(deployment: Deployed) -> dict[str, Any]:
    """What a deployment's manifest says."""
    alone = len(deployment.arms) == 1
    named = deployment.arms[0].model_name
    return {
        "deployment_id": deployment.deployment_id,
        "experiment_id": deployment.experiment_id,
        "shares": {arm.name: arm.share for arm in deployment.arms},
        "versions": {arm.name: arm.version for arm in deployment.arms},
        "status": "skipped" if alone else "ok",
        "reason": f"no version of {named!r} is its challenger; the champion answers alone"
        if alone
        else "",
    }


def place_model(registry: Registry, version: ResolvedVersion, *, work: Path, out: Path) -> Path:
    """Fetch a version into a deployment's folder, with the key that its signature is checked with.

    Args:
        registry: where from.
        version: what serves.
        work: folder that keeps fetched models from one run to the next.
        out: the deployment's folder; the model comes to lie in ``models/`` inside.

    Returns:
        The model's folder.

    Raises:
        RegistryError: the model is not what was registered, or MLflow is away.
        SettingsError: there is no key to check its signature with.
    """
    fetched = download(registry, version, work)
    models = out / "models"
    inside = models / fetched.name
    models.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(verification_key(registry.state, os.environ), models / VERIFY_KEY_NAME)
    if not inside.is_dir():
        half = models / f".{fetched.name}.tmp"  # of a run that was killed
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(fetched, half, copy_function=link_or_copy)
        half.rename(inside)
    return inside


def _fetched(
    registry: Registry,
    arm: ArmName,
    version: ResolvedVersion,
    share: float,
    work: Path,
    out: Path,
) -> FetchedArm:
    inside = place_model(registry, version, work=work, out=out)
    return FetchedArm(arm, version, inside.relative_to(out), round(share, 4))
