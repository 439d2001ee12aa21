"""A language deployment: which language models answer, through which engine, on what evidence.

A JSON file like serving/deployment.py's, read once when the gateway starts. Its id is the hash of
what it says, without when it was written and where folders and servers are found: the same models
under the same shares are the same deployment on every machine.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    computed_field,
    field_validator,
    model_validator,
)

from data.contract import Identifier
from data.manifest import canonical_digest, write_text_atomically
from serving.dealing import MOST_ARMS, ArmName, Digest, PhasePlan, Share
from serving.deployment import check_arms, check_phase, read_sealed

_ELSEWHERE: Final = {"arms": {"__all__": {"endpoint": {"folder", "adapter", "base_url"}}}}
"""Where something is found, which says nothing of what it is."""


class InProcessEndpoint(BaseModel):
    """A model that the gateway itself loads, with transformers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["in_process"] = "in_process"
    folder: Path = Field(description="Model folder; a relative one starts at the deployment file.")
    adapter: Path | None = Field(default=None, description="Adapter folder, on top of the model.")


class OpenAIEndpoint(BaseModel):
    """A server that speaks OpenAI's API, such as vLLM."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["openai"] = "openai"
    base_url: str = Field(description="The server's root: http://host:port, /v1 left out or not.")
    model: str = Field(
        min_length=1, max_length=500, description="What the server calls the model or adapter."
    )

    @field_validator("base_url")
    @classmethod
    def _is_a_root(cls, base_url: str) -> str:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"not a URL: {error}; write http://host:port") from error
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
            raise ValueError("not the root of a server; write http://host:port")
        if url.userinfo:
            raise ValueError("a deployment file holds no passwords; leave user:password@ out")
        return base_url.rstrip("/").removesuffix("/v1").rstrip("/")


Endpoint = Annotated[InProcessEndpoint | OpenAIEndpoint, Field(discriminator="kind")]


class LanguageArm(BaseModel):
    """One language model and its share of the units."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: ArmName
    model_name: Identifier
    version: Identifier
    manifest_digest: Digest = Field(
        description="Of the model's folder, or of the adapter's where there is one."
    )
    evidence_id: Identifier
    share: Share
    endpoint: Endpoint
    max_answer_tokens: int = Field(
        default=1_024,
        ge=16,
        le=131_072,
        description="No step of a summary asks for more: what an answer may take of the model's "
        "context. vLLM refuses a prompt that leaves it no room.",
    )

    @property
    def model_version(self) -> str:
        """What the store knows the model by."""
        return f"{self.model_name}/{self.version}"


class LanguageDeployment(BaseModel):
    """Arms that answer side by side; the first is the control, which others are held against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment_id: Identifier
    salt: str = Field(min_length=8, max_length=200, repr=False)
    arms: tuple[LanguageArm, ...] = Field(min_length=1, max_length=MOST_ARMS)
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
        here: Any = _ELSEWHERE | {"created_at": True, "deployment_id": True}
        if self.phase is None:
            here |= {"phase": True}
        return canonical_digest(self.model_dump(mode="json", exclude=here))[:32]

    @property
    def control(self) -> LanguageArm:
        """What the others are held against; it answers whoever takes no part."""
        return self.arms[0]

    def arm(self, name: ArmName) -> LanguageArm | None:
        """The arm of that name, if there is one."""
        return next((arm for arm in self.arms if arm.name == name), None)


def write_language_deployment(path: Path, deployment: LanguageDeployment) -> None:
    """Write a language deployment's file, whole or not at all.

    Raises:
        ArtifactError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, deployment.model_dump_json(indent=2) + "\n")


def read_language_deployment(path: Path) -> LanguageDeployment:
    """Read a language deployment's file; relative folders are resolved against the file's own.

    Raises:
        ArtifactError: there is no such file.
        ExperimentError: it is not a language deployment, or its id is not that of its contents.
    """
    deployment = read_sealed(path, LanguageDeployment.model_validate_json)
    arms = tuple(_resolved(arm, path.parent.resolve()) for arm in deployment.arms)
    return deployment.model_copy(update={"arms": arms})


def _resolved(arm: LanguageArm, here: Path) -> LanguageArm:
    endpoint = arm.endpoint
    if endpoint.kind == "openai":
        return arm
    found = {
        "folder": here / endpoint.folder,
        "adapter": here / endpoint.adapter if endpoint.adapter else None,
    }
    return arm.model_copy(update={"endpoint": endpoint.model_copy(update=found)})
