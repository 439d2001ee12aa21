"""Evidence and signature go to the store with a version, and are checked when it comes back."""

import json

import pytest

from data.errors import ArtifactError, RegistryError, SettingsError
from serving.deployment import read_deployment
from serving.gateway.arms import load_arm
from serving.gateway.settings import ServingSettings
from serving.model_signature import read_evidence, signing_key, verification_key
from serving.registry.arms import place_model
from serving.registry.promotion import deploy_challenger
from serving.registry.versions import download, get_version, resolve

NAME = "sentiment"


@pytest.fixture
def version(make_model, tmp_path, register):
    make_model(tmp_path / "model")
    return register(tmp_path / "model", reason="통과")


def test_a_version_comes_with_what_it_was_judged_by(registry, version, tmp_path):
    folder = download(registry, version, tmp_path / "cache")
    assert read_evidence(folder) == {
        "name": NAME,
        "manifest_digest": version.tags["manifest_digest"],
        "evidence_id": "e1",
        "gate_verdict": "pass",
        "reason": "통과",
    }
    assert not (tmp_path / "model/signature.json").exists()  # a sealed step's folder stays as it is


def test_registering_again_leaves_the_signature(
    registry, version, tmp_path, register, artifact_folder
):
    before = (artifact_folder(version) / "signature.json").read_bytes()
    register(tmp_path / "model", reason="통과")
    assert (artifact_folder(version) / "signature.json").read_bytes() == before


@pytest.mark.parametrize("name", ["signature.json", "evidence.json"])
def test_an_unsigned_version_is_refused_until_it_is_registered_again(
    registry, version, tmp_path, register, artifact_folder, name
):
    (artifact_folder(version) / name).unlink()
    with pytest.raises(RegistryError, match=f"unsigned: its {name} is not in the store"):
        download(registry, version, tmp_path / "cache")
    register(tmp_path / "model", reason="통과")
    download(registry, version, tmp_path / "cache")


def test_evidence_replaced_in_the_store_is_refused(registry, version, tmp_path, artifact_folder):
    path = artifact_folder(version) / "evidence.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"gate_verdict": "fail"}))
    with pytest.raises(RegistryError, match=r"Hash mismatch for 'evidence\.json'"):
        download(registry, version, tmp_path / "cache")


def test_a_tag_changed_by_hand_is_refused(registry, version, tmp_path):
    registry.client.set_model_version_tag(NAME, version.version, "gate_verdict", "fail")
    changed = get_version(registry, NAME, version.version)
    with pytest.raises(RegistryError, match="gate_verdict is 'fail', signed was 'pass'"):
        download(registry, changed, tmp_path / "cache")


def test_a_version_signed_by_another_is_refused(registry, version, tmp_path, monkeypatch):
    signing_key(tmp_path / "other", {})
    other = verification_key(tmp_path / "other", {})
    monkeypatch.setenv("MATJIP_VERIFY_KEY", str(other))
    with pytest.raises(RegistryError, match="Key mismatch"):
        download(registry, version, tmp_path / "cache")


def test_keys_that_do_not_belong_together_register_nothing(
    registry, make_model, tmp_path, register, monkeypatch, all_versions
):
    make_model(tmp_path / "model")
    signing_key(tmp_path / "other", {})
    monkeypatch.setenv("MATJIP_VERIFY_KEY", str(verification_key(tmp_path / "other", {})))
    with pytest.raises(SettingsError, match="is not the public half"):
        register(tmp_path / "model")
    assert all_versions() == []


def test_where_no_key_is_known_nothing_is_fetched(registry, version, tmp_path):
    for key in (registry.state / "signing").iterdir():
        key.unlink()
    with pytest.raises(SettingsError, match="MATJIP_VERIFY_KEY is not set"):
        download(registry, version, tmp_path / "cache")


def test_the_same_model_on_other_evidence_is_another_folder(
    registry, version, tmp_path, register, new_run, monkeypatch
):
    second = register(tmp_path / "model", key="version-2", run="run-2", evidence_id="e2")
    folders = {download(registry, one, tmp_path / "cache") for one in (version, second)}
    assert {read_evidence(folder)["evidence_id"] for folder in folders} == {"e1", "e2"}


def test_a_deployment_carries_the_key(registry, version, tmp_path):
    registry.client.set_registered_model_alias(NAME, "champion", version.version)
    found = resolve(registry, NAME, "champion")
    folder = place_model(registry, found, work=tmp_path / "cache", out=tmp_path / "out")
    key = folder.parent / "verify_key.pem"
    assert key.read_bytes() == verification_key(registry.state, {}).read_bytes()
    again = place_model(registry, found, work=tmp_path / "cache", out=tmp_path / "out")
    assert again == folder


def test_a_gateway_checks_what_is_deployed_by_the_key_that_came_with_it(
    registry, register, tiny_models, tmp_path
):
    version = register(tiny_models["champion"])
    registry.client.set_registered_model_alias(NAME, "champion", version.version)
    deploy_challenger(registry, name=NAME, share=0.0, work=tmp_path / "cache", out=tmp_path / "out")
    [arm] = read_deployment(tmp_path / "out/deployment.json").arms
    assert load_arm(arm, ServingSettings()).analyze(["국물이 맛있어요"])
    verify_key = verification_key(registry.state, {})
    assert load_arm(arm, ServingSettings(verify_key=verify_key)).analyze(["별로예요"])
    (arm.folder / "signature.json").unlink()
    with pytest.raises(ArtifactError, match="is unsigned"):
        load_arm(arm, ServingSettings())
