import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from data.errors import ArtifactError, ExperimentError
from serving.deployment import Arm, Deployment, read_deployment, write_deployment

NOW = datetime(2026, 11, 22, tzinfo=UTC)

PHASE = {"experiment": "e", "version": 1, "number": 2, "kind": "ab", "holdout": 0.1}


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
        arm(share=0.5, folder=Path("/elsewhere")),
        arm("challenger", 0.5),
        created_at=NOW + timedelta(days=1),
    )
    assert first.deployment_id == same.deployment_id
    others = [
        deployment(arm("challenger", 0.5), arm(share=0.5)),  # another control
        deployment(arm(share=0.5), arm("challenger", 0.5), phase=PHASE),
        deployment(arm(share=0.5), arm("challenger", 0.5), phase=PHASE | {"number": 3}),
        deployment(arm(share=0.6), arm("challenger", 0.4)),
        deployment(arm(share=0.5), arm("challenger", 0.5), salt="another salt"),
        deployment(arm(share=0.5), arm("challenger", 0.5, manifest_digest="cd" * 32)),
    ]
    assert len({first.deployment_id, *(one.deployment_id for one in others)}) == 7


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ((arm(share=0.5), arm("challenger", 0.4)), "add up to"),
        ((arm(share=0.5), arm(share=0.5)), "name each differently"),
        (tuple(arm(f"arm-{n}", 0.05) for n in range(20)), "at most 10"),
        ((), "at least 1"),
    ],
)
def test_arms_that_do_not_fit_are_refused(arms, message):
    with pytest.raises(ValidationError, match=message):
        deployment(*arms)


@pytest.mark.parametrize("name", ["", "Int8", "후보", "a b", "-a", "a" * 64])
def test_a_name_that_cannot_stand_everywhere_is_refused(name):
    with pytest.raises(ValidationError, match="name"):
        arm(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "other"}, "is not experiment_id='e'"),
        ({"overrides": {"ab" * 32: "third"}}, r"name \['third'\], which are no arms"),
        ({"kind": "shadow"}, "a shadow mirrors some"),
        ({"mirrored": 0.5}, "nothing else does"),
        ({"kind": "shadow", "mirrored": 0.5}, "have a share in a shadow"),
    ],
)
def test_a_phase_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        deployment(arm(share=0.5), arm("challenger", 0.5), phase=PHASE | changes)


def test_a_share_finer_than_a_bucket_is_refused():
    with pytest.raises(ValidationError, match="4 decimals"):
        arm(share=0.12345)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "deployment.json"
    written = deployment(
        arm(share=0.9, folder=Path("../models/champion")),
        arm("challenger", 0.1, folder=tmp_path),
        phase=PHASE,
    )
    write_deployment(path, written)
    read = read_deployment(path)
    assert read.deployment_id == written.deployment_id
    assert read.created_at == NOW
    assert read.phase == written.phase
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
