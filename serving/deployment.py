"""A deployment: which models answer, with which share of the traffic, and on what evidence.

It is a JSON file that the deploy step writes and the gateway reads once, when it starts. Its id is
the hash of what it says, without when it was written and where the folders lie: the same models
under the same shares are the same deployment on every machine.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field, model_validator

from data.contract import Identifier
from data.errors import ArtifactError, ExperimentError
from data.manifest import canonical_digest, write_text_atomically
from serving.dealing import BUCKETS, MOST_ARMS, ArmName, Digest, PhasePlan, Share


class SharedArm(Protocol):
    """What every kind of arm has: a name, and a share of the units."""

    @property
    def name(self) -> ArmName:
        """Which arm it is."""

    @property
    def share(self) -> float:
        """Of the units, from 0 to 1."""


class Sealed(Protocol):
    """What every kind of deployment has: an id that follows from what it says."""

    @property
    def deployment_id(self) -> str:
        """32 hex digits."""


AnyArm = TypeVar("AnyArm", bound=SharedArm)
AnyDeployment = TypeVar("AnyDeployment", bound=Sealed)


class Arm(BaseModel):
    """One model and its share of the units."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: ArmName
    model_name: Identifier
    version: Identifier
    folder: Path = Field(description="Model folder; a relative one starts at the deployment file.")
    manifest_digest: Digest
    evidence_id: Identifier
    share: Share


def check_arms(arms: Sequence[SharedArm]) -> None:
    """Refuse arms that do not share out the units.

    Raises:
        ValueError: for pydantic, which says where.
    """
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names):
        raise ValueError(f"arms are {names!r}; name each differently")
    total = sum(round(arm.share * BUCKETS) for arm in arms)
    if total != BUCKETS:
        raise ValueError(f"shares add up to {total / BUCKETS!r}; make them add up to 1")


def check_phase(experiment_id: str, arms: Sequence[SharedArm], phase: PhasePlan | None) -> None:
    """Refuse a phase that is another experiment's, or names arms that are not there.

    Raises:
        ValueError: for pydantic, which says where.
    """
    if phase is None:
        return
    if phase.experiment != experiment_id:
        raise ValueError(
            f"phase.experiment={phase.experiment!r} is not experiment_id={experiment_id!r}"
        )
    strange = sorted(set(phase.overrides.values()) - {arm.name for arm in arms})
    if strange:
        raise ValueError(f"phase.overrides name {strange!r}, which are no arms")
    dealt = [arm.name for arm in arms[1:] if arm.share]
    if phase.kind == "shadow" and dealt:
        raise ValueError(
            f"arms {dealt!r} have a share in a shadow, which the control alone answers"
        )


class Deployment(BaseModel):
    """Arms that answer side by side; the first is the control, which others are held against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment_id: Identifier
    salt: str = Field(min_length=8, max_length=200, repr=False)
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=MOST_ARMS)
    created_at: datetime
    phase: PhasePlan | None = None

    @model_validator(mode="after")
    def _arms_fit_together(self) -> Self:
        check_arms(self.arms)
        check_phase(self.experiment_id, self.arms, self.phase)
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deployment_id(self) -> str:
        """32 hex digits: the hash of what this deployment says."""
        said: dict[str, Any] = {
            "experiment_id": self.experiment_id,
            "salt": self.salt,
            "arms": [arm.model_dump(mode="json", exclude={"folder"}) for arm in self.arms],
        }
        if self.phase is not None:
            said["phase"] = self.phase.model_dump(mode="json")
        return canonical_digest(said)[:32]

    @property
    def control(self) -> Arm:
        """What the others are held against; it answers whoever takes no part."""
        return self.arms[0]

    def arm(self, name: ArmName) -> Arm | None:
        """The arm of that name, if there is one."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def share(self, name: ArmName) -> float:
        """The arm's share of the units that take part; 0 if there is no such arm."""
        arm = self.arm(name)
        return arm.share if arm else 0.0


def write_deployment(path: Path, deployment: Deployment) -> None:
    """Write a deployment file, whole or not at all.

    Raises:
        ArtifactError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, deployment.model_dump_json(indent=2) + "\n")


def read_deployment(path: Path) -> Deployment:
    """Read a deployment file; relative folders are resolved against the file's own.

    Raises:
        ArtifactError: there is no such file.
        ExperimentError: it is not a deployment, or its id is not that of its contents.
    """
    deployment = read_sealed(path, Deployment.model_validate_json)
    here = path.parent.resolve()
    arms = tuple(arm.model_copy(update={"folder": here / arm.folder}) for arm in deployment.arms)
    return deployment.model_copy(update={"arms": arms})


def read_sealed(path: Path, validate: Callable[[bytes], AnyDeployment]) -> AnyDeployment:
    """Read a deployment of any kind, and hold its id against its contents.

    Args:
        path: of its JSON.
        validate: its JSON, without the id, to the deployment; raises pydantic's ValidationError.

    Raises:
        ArtifactError: there is no such file.
        ExperimentError: it is not a deployment, or its id is not that of its contents.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"cannot read the deployment file {str(path)!r}: {error.strerror}; run the deploy step"
        ) from error
    try:
        stored = orjson.loads(text)
        said_id = stored.pop("deployment_id", None)
        deployment = validate(orjson.dumps(stored))
    except (orjson.JSONDecodeError, AttributeError, TypeError) as error:
        raise ExperimentError(
            f"{str(path)!r} is not a JSON object; run the deploy step again"
        ) from error
    except ValidationError as error:
        raise ExperimentError(
            f"{str(path)!r} is not a deployment: {_plain(error)}; run the deploy step again"
        ) from error
    if said_id != deployment.deployment_id:
        raise ExperimentError(
            f"{str(path)!r} says deployment_id={said_id!r}, its contents hash to "
            f"{deployment.deployment_id!r}; it was edited by hand: run the deploy step again"
        )
    return deployment


def _plain(error: ValidationError) -> str:
    # pydantic's own text repeats the input, and with it the salt.
    return "; ".join(
        f"{'.'.join(map(str, line['loc'])) or 'deployment'}: {line['msg']}"
        for line in error.errors()
    )
