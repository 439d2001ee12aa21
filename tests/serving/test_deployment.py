import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from data.errors import ArtifactError, ExperimentError
from serving.deployment import Arm, Deployment, read_deployment, write_deployment

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def arm(name: str = "champion", share: float = 1.0, **changes: object) -> Arm:
    given = {
        "name": name,
        "model_name": "sentiment",
        "version": "7" if name == "champion" else "8",
        "folder": Path("/models") / name,
        "manifest_digest": "ab" * 32,
        "evidence_id": "evidence",
        "share": share,
    }
    return Arm.model_validate(given | changes)


def deployment(*arms: Arm, **changes: object) -> Deployment:
    given = {"experiment_id": "e", "salt": "long enough", "arms": arms, "created_at": NOW}
    return Deployment.model_validate(given | changes)


def test_a_champion_alone_is_a_deployment():
    alone = deployment(arm())
    assert alone.share("champion") == 1.0
    assert alone.share("challenger") == 0.0
    assert alone.arm("challenger") is None


def test_the_id_is_that_of_the_contents():
    first = deployment(arm(share=0.5), arm("challenger", 0.5))
    same = deployment(
        arm("challenger", 0.5),
        arm(share=0.5, folder=Path("/elsewhere")),
        created_at=NOW + timedelta(days=1),
    )
    assert first.deployment_id == same.deployment_id
    assert [one.name for one in same.arms] == ["champion", "challenger"]
    others = [
        deployment(arm(share=0.6), arm("challenger", 0.4)),
        deployment(arm(share=0.5), arm("challenger", 0.5), salt="another salt"),
        deployment(arm(share=0.5), arm("challenger", 0.5, manifest_digest="cd" * 32)),
    ]
    assert len({first.deployment_id, *(one.deployment_id for one in others)}) == 4


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ((arm(share=0.5), arm("challenger", 0.4)), "add up to"),
        ((arm("challenger"),), "one champion"),
        ((arm(share=0.5), arm(share=0.5)), "one champion"),
        ((), "at least 1"),
    ],
)
def test_arms_that_do_not_fit_are_refused(arms, message):
    with pytest.raises(ValidationError, match=message):
        deployment(*arms)


def test_a_share_finer_than_a_bucket_is_refused():
    with pytest.raises(ValidationError, match="4 decimals"):
        arm(share=0.12345)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "deployment.json"
    written = deployment(
        arm(share=0.9, folder=Path("../models/champion")), arm("challenger", 0.1, folder=tmp_path)
    )
    write_deployment(path, written)
    read = read_deployment(path)
    assert read.deployment_id == written.deployment_id
    assert read.created_at == NOW
    assert read.arms[0].folder == path.parent / "../models/champion"
    assert read.arms[1].folder == tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said["arms"][0].update(version="9"), "edited by hand"),
        (lambda said: said.pop("deployment_id"), "edited by hand"),
        (lambda said: said["arms"][0].update(share=0.2), "add up to"),
        (lambda said: said.update(surprise=1), "surprise"),
    ],
)
def test_an_edited_file_is_refused_and_the_salt_is_not_shown(tmp_path, change, message):
    path = tmp_path / "deployment.json"
    write_deployment(path, deployment(arm()))
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))
    with pytest.raises(ExperimentError, match=message) as refused:
        read_deployment(path)
    assert "long enough" not in str(refused.value)


@pytest.mark.parametrize("text", ["[]", "{", "", "\x00"])
def test_a_file_that_is_no_deployment_is_refused(tmp_path, text):
    path = tmp_path / "deployment.json"
    path.write_text(text)
    with pytest.raises(ExperimentError, match="not a JSON object"):
        read_deployment(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="run the deploy step"):
        read_deployment(tmp_path / "none.json")
