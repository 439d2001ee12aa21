import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from data.errors import ArtifactError, ExperimentError
from serving.embedding_deployment import (
    EmbeddingDeployment,
    read_embedding_deployment,
    write_embedding_deployment,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def deployment(**changes: object) -> EmbeddingDeployment:
    given = {
        "model_name": "matjip-embedding",
        "version": "3",
        "folder": Path("models/ab"),
        "manifest_digest": "ab" * 32,
        "evidence_id": "evidence",
        "created_at": NOW,
    }
    return EmbeddingDeployment.model_validate(given | changes)


def test_the_id_is_that_of_the_model_not_of_its_place():
    first = deployment()
    moved = deployment(folder=Path("/elsewhere"), created_at=NOW + timedelta(days=1))
    assert first.deployment_id == moved.deployment_id
    others = [deployment(version="4"), deployment(manifest_digest="cd" * 32)]
    assert len({first.deployment_id, *(other.deployment_id for other in others)}) == 3
    assert first.model_version == "matjip-embedding/3"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "embedding_deployment.json"
    write_embedding_deployment(path, deployment())
    read = read_embedding_deployment(path)
    assert read.deployment_id == deployment().deployment_id
    assert read.folder == path.parent / "models/ab"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said.update(version="9"), "edited by hand"),
        (lambda said: said.pop("deployment_id"), "edited by hand"),
        (lambda said: said.update(surprise=1), "surprise"),
        (lambda said: said.pop("folder"), "folder"),
    ],
)
def test_an_edited_file_is_refused(tmp_path, change, message):
    path = tmp_path / "embedding_deployment.json"
    write_embedding_deployment(path, deployment())
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    with pytest.raises(ExperimentError, match=message):
        read_embedding_deployment(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="run the deploy step"):
        read_embedding_deployment(tmp_path / "none.json")


@pytest.mark.parametrize("wrong", [{"manifest_digest": "ab"}, {"model_name": "two words"}])
def test_a_wrong_field_is_refused(wrong):
    with pytest.raises(ValidationError):
        deployment(**wrong)
