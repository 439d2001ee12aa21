"""Versions: registered once and whole, resolved, and downloaded as they were registered."""

import json
import threading

import pytest

from data.errors import RegistryError
from data.manifest import MANIFEST_NAME, read_manifest, write_manifest
from serving.model_folder import MODEL_KIND
from serving.registry.connection import KEY_TAG
from serving.registry.versions import READY, STATUS_TAG, download, resolve

NAME = "sentiment"


def test_a_version_has_its_files_signature_card_and_tags(
    registry, make_model, tmp_path, register, artifact_folder
):
    manifest = make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    found = registry.client.get_model_version(NAME, version.version)
    assert found.tags["manifest_digest"] == manifest.digest
    assert found.tags[STATUS_TAG] == READY
    assert found.description == "# 모델 카드"
    assert found.status == "READY"

    from mlflow.models import Model

    model = Model.load(str(artifact_folder(version)))
    assert model.signature.inputs.input_names() == ["text"]
    assert "sentiment" in model.signature.outputs.input_names()
    assert list(model.flavors) == ["matjip"]


def test_the_same_key_is_the_same_version(make_model, tmp_path, register, all_versions):
    make_model(tmp_path / "model")
    first = register(tmp_path / "model")
    assert register(tmp_path / "model").version == first.version
    assert len(all_versions()) == 1


def test_a_key_cannot_be_used_for_another_model(make_model, tmp_path, register):
    make_model(tmp_path / "one")
    make_model(tmp_path / "two", weight=2.0)
    register(tmp_path / "one")
    with pytest.raises(RegistryError, match="the key must change"):
        register(tmp_path / "two")


@pytest.mark.parametrize("killed_in", ["log_artifact", "create_model_version"])
def test_a_registration_that_was_killed_is_completed(
    registry,
    make_model,
    tmp_path,
    monkeypatch,
    killed_in,
    register,
    all_versions,
    artifact_folder,
    interrupt,
):
    make_model(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(type(registry.client), killed_in, interrupt)
        with pytest.raises(KeyboardInterrupt):
            register(tmp_path / "model")
    assert all_versions() == []
    version = register(tmp_path / "model")
    assert [found.version for found in all_versions()] == [int(version.version)]
    read_manifest(artifact_folder(version), MODEL_KIND)


def test_a_request_sent_twice_leaves_one_version(
    registry, make_model, tmp_path, monkeypatch, register, all_versions
):
    make_model(tmp_path / "model")
    create = type(registry.client).create_model_version

    def twice(*arguments, **names):
        create(*arguments, **names)
        return create(*arguments, **names)

    monkeypatch.setattr(type(registry.client), "create_model_version", twice)
    version = register(tmp_path / "model")
    assert [str(found.version) for found in all_versions()] == [version.version]


def test_a_store_that_keeps_half_a_file_gets_no_version(
    registry, make_model, tmp_path, monkeypatch, register, all_versions, artifact_folder
):
    make_model(tmp_path / "model")
    store = type(registry.client).log_artifact

    def cut_short(client, run_id, path, target=None):
        store(client, run_id, path, target)
        for stored in registry.state.glob(f"artifacts/*/{run_id}/artifacts/models/*/model.onnx"):
            stored.write_bytes(stored.read_bytes()[:10])

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.client), "log_artifact", cut_short)
        with pytest.raises(RegistryError, match=r"did not keep \['model.onnx'\]"):
            register(tmp_path / "model")
    assert all_versions() == []
    version = register(tmp_path / "model")
    read_manifest(artifact_folder(version), MODEL_KIND)


def test_a_full_disk_is_an_error_that_can_be_mended(
    registry, make_model, tmp_path, monkeypatch, register
):
    make_model(tmp_path / "model")

    def full(*_arguments, **_names):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.client), "log_artifact", full)
        with pytest.raises(RegistryError, match=r"No space left.*run the step again"):
            register(tmp_path / "model")
    assert register(tmp_path / "model").version == "1"


def test_an_alias_resolves_to_a_version_or_to_none(registry, make_model, tmp_path, register):
    assert resolve(registry, NAME, "champion") is None
    make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    assert resolve(registry, NAME, "champion") is None
    registry.client.set_registered_model_alias(NAME, "champion", version.version)
    assert resolve(registry, NAME, "champion") == version


def test_a_version_that_matjip_did_not_register_is_not_resolved(registry, new_run):
    run_id = new_run()
    registry.client.create_registered_model(NAME)
    registry.client.create_model_version(NAME, f"runs:/{run_id}/elsewhere", run_id)
    registry.client.set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(RegistryError, match="matjip did not register it"):
        resolve(registry, NAME, "champion")


def test_a_download_is_whole_and_made_once(registry, make_model, tmp_path, register):
    manifest = make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    folder = download(registry, version, tmp_path / "cache")
    assert read_manifest(folder, MODEL_KIND).digest == manifest.digest
    assert not (folder / "MLmodel").exists()
    changed = folder.stat().st_mtime_ns
    assert download(registry, version, tmp_path / "cache") == folder
    assert folder.stat().st_mtime_ns == changed
    assert (folder / "model.onnx").read_bytes() == (tmp_path / "model/model.onnx").read_bytes()


def test_a_file_altered_in_the_store_is_refused(
    registry, make_model, tmp_path, register, artifact_folder
):
    make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    stored = artifact_folder(version) / "model.onnx"
    stored.write_bytes(stored.read_bytes() + b"\0")
    with pytest.raises(RegistryError, match="not what was registered"):
        download(registry, version, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_model_replaced_with_its_manifest_is_refused(
    registry, make_model, tmp_path, register, artifact_folder
):
    make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    stored = artifact_folder(version)
    (stored / "tokenizer.json").write_text('{"version": "evil"}')
    write_manifest(stored, MODEL_KIND, {"format": "onnx-fp32"})
    with pytest.raises(RegistryError, match="replaced"):
        download(registry, version, tmp_path / "cache")


def test_a_manifest_with_the_old_digest_written_in_is_refused(
    registry, make_model, tmp_path, register, artifact_folder
):
    make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    stored = artifact_folder(version)
    (stored / "tokenizer.json").write_text('{"version": "evil"}')
    write_manifest(stored, MODEL_KIND, {"format": "onnx-fp32"})
    forged = json.loads((stored / MANIFEST_NAME).read_text())
    forged["digest"] = version.tags["manifest_digest"]
    (stored / MANIFEST_NAME).write_text(json.dumps(forged))
    with pytest.raises(RegistryError, match="edited by hand"):
        download(registry, version, tmp_path / "cache")


def test_an_altered_local_copy_is_refused(registry, make_model, tmp_path, register):
    make_model(tmp_path / "model")
    version = register(tmp_path / "model")
    folder = download(registry, version, tmp_path / "cache")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(RegistryError, match="delete that folder"):
        download(registry, version, tmp_path / "cache")


def test_registrations_side_by_side_leave_one_version(make_model, tmp_path, register, all_versions):
    make_model(tmp_path / "model")
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(register(tmp_path / "model").version))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["1"] * 4
    assert len(all_versions()) == 1


def test_the_key_is_on_the_version(make_model, tmp_path, register):
    make_model(tmp_path / "model")
    assert register(tmp_path / "model").tags[KEY_TAG] == "version-1"
