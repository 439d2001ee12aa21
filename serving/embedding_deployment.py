"""An embedding deployment: the one embedding model that the gateway serves, and on what evidence.

A JSON file like serving/deployment.py's, read when the gateway starts or swaps its model. Its id is
the hash of what it says, without when it was written and where the folder lies: the same model is
the same deployment on every machine.
"""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, computed_field

from data.contract import Identifier
from data.manifest import canonical_digest, write_text_atomically
from serving.dealing import Digest
from serving.deployment import read_sealed

EMBEDDING_DEPLOYMENT_NAME: Final = "embedding_deployment.json"


class EmbeddingDeployment(BaseModel):
    """One embedding model, by its registered name and version."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_name: Identifier
    version: Identifier
    folder: Path = Field(
        description="Embedding folder; a relative one starts at the deployment file."
    )
    manifest_digest: Digest
    evidence_id: Identifier
    created_at: datetime

    @computed_field  # type: ignore[prop-decorator]
    @property
    def deployment_id(self) -> str:
        """32 hex digits: the hash of what this deployment says."""
        elsewhere: Any = {"folder", "created_at", "deployment_id"}
        return canonical_digest(self.model_dump(mode="json", exclude=elsewhere))[:32]

    @property
    def model_version(self) -> str:
        """What answers and metrics call the model by."""
        return f"{self.model_name}/{self.version}"


def write_embedding_deployment(path: Path, deployment: EmbeddingDeployment) -> None:
    """Write an embedding deployment's file, whole or not at all.

    Raises:
        ArtifactError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, deployment.model_dump_json(indent=2) + "\n")


def read_embedding_deployment(path: Path) -> EmbeddingDeployment:
    """Read an embedding deployment's file; a relative folder is resolved against the file's own.

    Raises:
        ArtifactError: there is no such file.
        ExperimentError: it is not an embedding deployment, or its id is not that of its contents.
    """
    deployment = read_sealed(path, EmbeddingDeployment.model_validate_json)
    return deployment.model_copy(update={"folder": path.parent.resolve() / deployment.folder})
