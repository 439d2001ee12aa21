import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.errors import ArtifactError, ExperimentError
from serving.experiments.assignment import Dealer, unit_hash
from serving.language_deployment import (
    LanguageArm,
    LanguageDeployment,
    OpenAIEndpoint,
    read_language_deployment,
    write_language_deployment,
)

VLLM = {"kind": "openai", "base_url": "http://vllm:8000", "model": "served"}
HERE = {"kind": "in_process", "folder": "/models/base"}


def arm(name: str = "champion", share: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "model_name": "후기-7b",
        "version": "3",
        "manifest_digest": "ab" * 32,
        "evidence_id": "e",
        "share": share,
        "endpoint": VLLM,
    } | changes


def deployment(*arms: dict[str, Any], **changes: Any) -> LanguageDeployment:
    said = {"experiment_id": "e", "salt": "long enough", "arms": arms}
    return LanguageDeployment.model_validate(
        said | {"created_at": "2026-11-22T00:00:00Z"} | changes
    )


def test_the_id_is_of_the_models_not_of_where_they_are():
    first = deployment(arm())
    elsewhere = arm(endpoint=VLLM | {"base_url": "https://other:1/v1/"})
    same = deployment(elsewhere, created_at=first.created_at + timedelta(days=1))
    assert first.deployment_id == same.deployment_id
    here = deployment(arm(endpoint=HERE))
    there = deployment(arm(endpoint=HERE | {"folder": "/b", "adapter": "/c"}))
    assert here.deployment_id == there.deployment_id
    others = [
        deployment(arm(endpoint=VLLM | {"model": "another"})),
        deployment(arm(version="4")),
        deployment(arm(manifest_digest="cd" * 32)),
        deployment(arm(max_answer_tokens=99)),
        deployment(arm(share=0.5), arm("challenger", 0.5)),
        here,
    ]
    assert len({first.deployment_id, *(one.deployment_id for one in others)}) == 7


def test_units_stay_with_their_arm_and_meet_both():
    two = deployment(arm(share=0.5), arm("challenger", 0.5, version="4"))
    hashed = [unit_hash(two.salt, f"u{number}") for number in range(200)]
    dealt = [Dealer(two).meet(one)[0].name for one in hashed]
    assert dealt == [Dealer(two).meet(one)[0].name for one in hashed]
    assert 60 < dealt.count("champion") < 140


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://vllm:8000", "http://vllm:8000"),
        ("http://vllm:8000/v1/", "http://vllm:8000"),
        ("https://host/llm/v1", "https://host/llm"),
    ],
)
def test_the_root_of_a_server_is_found(base_url, root):
    assert OpenAIEndpoint(base_url=base_url, model="m").base_url == root


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpoint": VLLM | {"base_url": "vllm:8000"}}, "root of a server"),
        ({"endpoint": VLLM | {"base_url": "ftp://vllm"}}, "root of a server"),
        ({"endpoint": VLLM | {"base_url": "http://a:b@vllm"}}, "no passwords"),
        ({"endpoint": VLLM | {"base_url": "http://vllm/?key=1"}}, "root of a server"),
        ({"endpoint": VLLM | {"base_url": "http://[::1"}}, "not a URL"),
        ({"endpoint": VLLM | {"folder": "/a"}}, "folder"),
        ({"endpoint": {"kind": "magic"}}, "kind"),
        ({"endpoint": {"folder": "/a"}}, "kind"),
        ({"max_answer_tokens": 1}, "max_answer_tokens"),
        ({"share": 0.12345}, "4 decimals"),
        ({"share": 0.5}, "add up to"),
        ({"name": "도전자"}, "name"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_arms_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        deployment(arm(**change))


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "language.json"
    written = deployment(
        arm(share=0.9), arm("challenger", 0.1, endpoint=HERE | {"folder": "../base"})
    )
    write_language_deployment(path, written)
    read = read_language_deployment(path)
    assert read.deployment_id == written.deployment_id
    champion, challenger = read.arms
    assert champion == written.arms[0]
    assert challenger.endpoint.kind == "in_process"
    assert challenger.endpoint.folder == path.parent / "../base"
    assert challenger.endpoint.adapter is None
    assert isinstance(read.arm("champion"), LanguageArm)


def test_an_adapter_is_found_beside_the_file(tmp_path):
    path = tmp_path / "language.json"
    write_language_deployment(path, deployment(arm(endpoint=HERE | {"adapter": "lora"})))
    endpoint = read_language_deployment(path).arms[0].endpoint
    assert endpoint.kind == "in_process"
    assert endpoint.folder == Path("/models/base")
    assert endpoint.adapter == tmp_path / "lora"


def test_an_edited_or_foreign_file_is_refused_and_the_salt_is_not_shown(tmp_path):
    path = tmp_path / "language.json"
    write_language_deployment(path, deployment(arm()))
    said = json.loads(path.read_text())
    said["arms"][0]["endpoint"]["model"] = "another"
    path.write_text(json.dumps(said))
    with pytest.raises(ExperimentError, match="edited by hand"):
        read_language_deployment(path)
    del said["arms"][0]["endpoint"]
    said["arms"][0]["folder"] = "/a"
    path.write_text(json.dumps(said))
    with pytest.raises(ExperimentError, match="endpoint") as refused:
        read_language_deployment(path)
    assert "long enough" not in str(refused.value)
    with pytest.raises(ArtifactError, match="cannot read the deployment file"):
        read_language_deployment(tmp_path / "none.json")
