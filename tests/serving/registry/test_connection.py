import json
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import serving.registry.connection as module
from data.errors import ArtifactError, RegistryError
from data.manifest import MANIFEST_NAME, canonical_digest, read_manifest, write_manifest
from serving.model_folder import MODEL_KIND
from serving.registry.connection import KEY_TAG, Registry, connect, log_run
from serving.registry.versions import READY, STATUS_TAG, download, register_version, resolve

NAME = "sentiment"


def new_run(registry: Registry, key: str = "run-1", **changes):
    arguments = {
        "experiment": "training",
        "run_name": "첫 번째",
        "params": {"epochs": 3},
        "metrics": {"macro_f1": 0.8, "loss": [(1, 0.9), (2, 0.5), (3, 0.4)]},
        "tags": {"snapshot_id": "abc"},
        "artifacts": {},
        "idempotency_key": key,
    }
    return log_run(registry, **(arguments | changes))


def register(registry: Registry, folder: Path, key: str = "version-1", **tags: str):
    return register_version(
        registry,
        name=NAME,
        folder=folder,
        tags={"evidence_id": "e1", "gate_verdict": "pass", **tags},
        description="# 모델 카드",
        run_id=new_run(registry),
        idempotency_key=key,
    )


def all_versions(registry: Registry):
    return registry.client.search_model_versions(f"name = '{NAME}'")


def artifact_folder(registry: Registry, version) -> Path:
    [manifest] = registry.state.glob(
        f"artifacts/*/{version.run_id}/artifacts/models/*/manifest.json"
    )
    return manifest.parent


def test_a_run_keeps_its_curve_and_its_files(registry, tmp_path):
    report = tmp_path / "report.json"
    report.write_text("{}")
    run_id = new_run(registry, artifacts={"evaluation": report})
    history = registry.client.get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.9), (2, 0.5), (3, 0.4)]
    run = registry.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3"}
    assert [entry.path for entry in registry.client.list_artifacts(run_id, "evaluation")] == [
        "evaluation/report.json"
    ]


def test_long_curves_and_many_settings_are_logged_whole(registry):
    run_id = new_run(
        registry,
        metrics={"loss": [(step, 1 / (step + 1)) for step in range(250)]},
        params={f"setting_{number}": number for number in range(150)},
    )
    assert len(registry.client.get_metric_history(run_id, "loss")) == 250
    assert len(registry.client.get_run(run_id).data.params) == 150


def test_the_same_key_is_the_same_run(registry):
    first = new_run(registry)
    assert new_run(registry) == first
    assert new_run(registry, key="run-2") != first


def test_a_run_that_was_killed_is_finished_without_a_point_twice(registry, monkeypatch):
    client = type(registry.client)
    with monkeypatch.context() as patch:
        patch.setattr(client, "set_terminated", interrupt)
        with pytest.raises(KeyboardInterrupt):
            new_run(registry)
    run_id = new_run(registry)
    assert len(registry.client.get_metric_history(run_id, "loss")) == 3
    experiment = registry.client.get_experiment_by_name("training")
    assert len(registry.client.search_runs([experiment.experiment_id])) == 1
    assert registry.client.get_run(run_id).info.status == "FINISHED"


def interrupt(*_arguments, **_names):
    raise KeyboardInterrupt


def test_a_key_that_could_change_a_search_is_refused(registry):
    with pytest.raises(RegistryError, match="idempotency key"):
        new_run(registry, key="x' or tags.a = 'b")


def test_an_experiment_that_was_deleted_is_named(registry):
    new_run(registry)
    experiment = registry.client.get_experiment_by_name("training")
    registry.client.delete_experiment(experiment.experiment_id)
    with pytest.raises(RegistryError, match="was deleted; restore it"):
        new_run(registry, key="run-2")


def test_a_version_has_its_files_signature_card_and_tags(registry, make_model, tmp_path):
    manifest = make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    found = registry.client.get_model_version(NAME, version.version)
    assert found.tags["manifest_digest"] == manifest.digest
    assert found.tags[STATUS_TAG] == READY
    assert found.description == "# 모델 카드"
    assert found.status == "READY"

    from mlflow.models import Model

    model = Model.load(str(artifact_folder(registry, version)))
    assert model.signature.inputs.input_names() == ["text"]
    assert "sentiment" in model.signature.outputs.input_names()
    assert list(model.flavors) == ["matjip"]


def test_the_same_key_is_the_same_version(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    first = register(registry, tmp_path / "model")
    assert register(registry, tmp_path / "model").version == first.version
    assert len(all_versions(registry)) == 1


def test_a_key_cannot_be_used_for_another_model(registry, make_model, tmp_path):
    make_model(tmp_path / "one")
    make_model(tmp_path / "two", weight=2.0)
    register(registry, tmp_path / "one")
    with pytest.raises(RegistryError, match="the key must change"):
        register(registry, tmp_path / "two")


@pytest.mark.parametrize("killed_in", ["log_artifact", "create_model_version"])
def test_a_registration_that_was_killed_is_completed(
    registry, make_model, tmp_path, monkeypatch, killed_in
):
    make_model(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(type(registry.client), killed_in, interrupt)
        with pytest.raises(KeyboardInterrupt):
            register(registry, tmp_path / "model")
    assert all_versions(registry) == []
    version = register(registry, tmp_path / "model")
    assert [found.version for found in all_versions(registry)] == [int(version.version)]
    read_manifest(artifact_folder(registry, version), MODEL_KIND)


def test_a_request_sent_twice_leaves_one_version(registry, make_model, tmp_path, monkeypatch):
    make_model(tmp_path / "model")
    create = type(registry.client).create_model_version

    def twice(*arguments, **names):
        create(*arguments, **names)
        return create(*arguments, **names)

    monkeypatch.setattr(type(registry.client), "create_model_version", twice)
    version = register(registry, tmp_path / "model")
    assert [str(found.version) for found in all_versions(registry)] == [version.version]


def test_a_store_that_keeps_half_a_file_gets_no_version(
    registry, make_model, tmp_path, monkeypatch
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
            register(registry, tmp_path / "model")
    assert all_versions(registry) == []
    version = register(registry, tmp_path / "model")
    read_manifest(artifact_folder(registry, version), MODEL_KIND)


def test_a_full_disk_is_an_error_that_can_be_mended(registry, make_model, tmp_path, monkeypatch):
    make_model(tmp_path / "model")

    def full(*_arguments, **_names):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.client), "log_artifact", full)
        with pytest.raises(RegistryError, match=r"No space left.*run the step again"):
            register(registry, tmp_path / "model")
    assert register(registry, tmp_path / "model").version == "1"


@pytest.mark.parametrize(
    "name", ["weights.bin", "weights.pt", "model.pkl", "load.py", "a.onnx.zip"]
)
def test_formats_that_can_run_are_refused(registry, make_model, tmp_path, name):
    make_model(tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"anything")
    write_manifest(tmp_path / "model", MODEL_KIND, {})
    with pytest.raises(RegistryError, match="may not go to the registry"):
        register(registry, tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "model.onnx", "model.safetensors", "card.md", "model.onnx.data"]
)
def test_a_pickle_is_refused_under_any_name(registry, make_model, tmp_path, name):
    make_model(tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(pickle.dumps({"weights": [1.0]}))
    write_manifest(tmp_path / "model", MODEL_KIND, {})
    with pytest.raises(RegistryError, match="not what its name says"):
        register(registry, tmp_path / "model")
    assert all_versions(registry) == []


def test_a_file_put_in_after_sealing_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    (tmp_path / "model" / "more.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"does not list: \['more.json'\]"):
        register(registry, tmp_path / "model")


def test_an_altered_file_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text('{"version": "2.0"}')
    with pytest.raises(ArtifactError, match="altered or cut short"):
        register(registry, tmp_path / "model")


def test_an_alias_resolves_to_a_version_or_to_none(registry, make_model, tmp_path):
    assert resolve(registry, NAME, "champion") is None
    make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    assert resolve(registry, NAME, "champion") is None
    registry.client.set_registered_model_alias(NAME, "champion", version.version)
    assert resolve(registry, NAME, "champion") == version


def test_a_version_that_matjip_did_not_register_is_not_resolved(registry):
    run_id = new_run(registry)
    registry.client.create_registered_model(NAME)
    registry.client.create_model_version(NAME, f"runs:/{run_id}/elsewhere", run_id)
    registry.client.set_registered_model_alias(NAME, "champion", "1")
    with pytest.raises(RegistryError, match="matjip did not register it"):
        resolve(registry, NAME, "champion")


def test_a_download_is_whole_and_made_once(registry, make_model, tmp_path):
    manifest = make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    folder = download(registry, version, tmp_path / "cache")
    assert read_manifest(folder, MODEL_KIND).digest == manifest.digest
    assert not (folder / "MLmodel").exists()
    changed = folder.stat().st_mtime_ns
    assert download(registry, version, tmp_path / "cache") == folder
    assert folder.stat().st_mtime_ns == changed
    assert (folder / "model.onnx").read_bytes() == (tmp_path / "model/model.onnx").read_bytes()


def test_a_file_altered_in_the_store_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    stored = artifact_folder(registry, version) / "model.onnx"
    stored.write_bytes(stored.read_bytes() + b"\0")
    with pytest.raises(RegistryError, match="not what was registered"):
        download(registry, version, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_a_model_replaced_with_its_manifest_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    stored = artifact_folder(registry, version)
    (stored / "tokenizer.json").write_text('{"version": "evil"}')
    write_manifest(stored, MODEL_KIND, {"format": "onnx-fp32"})
    with pytest.raises(RegistryError, match="replaced"):
        download(registry, version, tmp_path / "cache")


def test_a_manifest_with_the_old_digest_written_in_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    stored = artifact_folder(registry, version)
    (stored / "tokenizer.json").write_text('{"version": "evil"}')
    write_manifest(stored, MODEL_KIND, {"format": "onnx-fp32"})
    forged = json.loads((stored / MANIFEST_NAME).read_text())
    forged["digest"] = version.tags["manifest_digest"]
    (stored / MANIFEST_NAME).write_text(json.dumps(forged))
    with pytest.raises(RegistryError, match="edited by hand"):
        download(registry, version, tmp_path / "cache")


def test_a_manifest_that_leaves_its_folder_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    manifest = read_manifest(tmp_path / "model")
    files = {**manifest.files, "../outside.json": manifest.files["tokenizer.json"]}
    (tmp_path / "outside.json").write_bytes((tmp_path / "model/tokenizer.json").read_bytes())
    identity = {
        "kind": manifest.kind,
        "contract_version": manifest.contract_version,
        "files": {name: entry.sha256 for name, entry in files.items()},
        "facts": manifest.facts,
    }
    forged = manifest.model_copy(update={"files": files, "digest": canonical_digest(identity)})
    (tmp_path / "model" / MANIFEST_NAME).write_text(forged.model_dump_json())
    with pytest.raises(RegistryError, match="leaves its folder"):
        register(registry, tmp_path / "model")


def test_an_altered_local_copy_is_refused(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    version = register(registry, tmp_path / "model")
    folder = download(registry, version, tmp_path / "cache")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(RegistryError, match="delete that folder"):
        download(registry, version, tmp_path / "cache")


def test_registrations_side_by_side_leave_one_version(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(register(registry, tmp_path / "model").version))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == ["1"] * 4
    assert len(all_versions(registry)) == 1


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PROBE_FOR_S", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://someone:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryError, match="does not answer") as caught:
            connect(uri, state=tmp_path)
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="no-such-store"):
        connect("no-such-store://here", state=tmp_path)


def test_a_database_that_is_none_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(RegistryError, match="file is not a database"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_nothing_is_written_outside_the_registrys_folder(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    register(registry, tmp_path / "model")
    with sqlite3.connect(registry.state / "mlflow.db") as database:
        [[location]] = database.execute(
            "select artifact_location from experiments where name = 'training'"
        ).fetchall()
    assert location.startswith(registry.state.as_uri())
    assert not Path("mlruns").exists()


def test_importing_the_registry_does_not_import_mlflow():
    modules = "sys, training.registered_pair, serving.registry.promotion"
    code = f"import {modules}; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_key_is_on_the_version(registry, make_model, tmp_path):
    make_model(tmp_path / "model")
    assert register(registry, tmp_path / "model").tags[KEY_TAG] == "version-1"
