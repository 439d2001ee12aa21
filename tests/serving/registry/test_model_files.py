"""Files that may not go to the registry: what can run, and what is not as it was sealed."""

import pickle

import pytest

from data.errors import ArtifactError, RegistryError
from data.manifest import MANIFEST_NAME, canonical_digest, read_manifest, write_manifest
from serving.model_folder import MODEL_KIND


@pytest.mark.parametrize(
    "name", ["weights.bin", "weights.pt", "model.pkl", "load.py", "a.onnx.zip"]
)
def test_formats_that_can_run_are_refused(make_model, tmp_path, name, register):
    make_model(tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"anything")
    write_manifest(tmp_path / "model", MODEL_KIND, {})
    with pytest.raises(RegistryError, match="may not go to the registry"):
        register(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "model.onnx", "model.safetensors", "card.md", "model.onnx.data"]
)
def test_a_pickle_is_refused_under_any_name(make_model, tmp_path, name, register, all_versions):
    make_model(tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(pickle.dumps({"weights": [1.0]}))
    write_manifest(tmp_path / "model", MODEL_KIND, {})
    with pytest.raises(RegistryError, match="not what its name says"):
        register(tmp_path / "model")
    assert all_versions() == []


def test_a_file_put_in_after_sealing_is_refused(make_model, tmp_path, register):
    make_model(tmp_path / "model")
    (tmp_path / "model" / "more.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"does not list: \['more.json'\]"):
        register(tmp_path / "model")


def test_an_altered_file_is_refused(make_model, tmp_path, register):
    make_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text('{"version": "2.0"}')
    with pytest.raises(ArtifactError, match="altered or cut short"):
        register(tmp_path / "model")


def test_a_manifest_that_leaves_its_folder_is_refused(make_model, tmp_path, register):
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
        register(tmp_path / "model")
