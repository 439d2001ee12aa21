"""Signatures: what was signed is let in, and whatever else is named for what it is."""

import os
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from data.errors import ArtifactError, SettingsError
from data.manifest import read_manifest, write_manifest
from serving.deployment import Arm
from serving.engines.plan_folder import PLAN_FOLDER
from serving.gateway.arms import load_arm
from serving.gateway.settings import ServingSettings, read_settings
from serving.model_folder import MODEL_KIND
from serving.model_signature import (
    VERIFY_KEY_NAME,
    check_before_loading,
    read_evidence,
    sign_folder,
    signing_key,
    verification_key,
    verify_folder,
    write_evidence,
)


@pytest.fixture
def keys(tmp_path):
    state = tmp_path / "state"
    return signing_key(state, {}), verification_key(state, {})


@pytest.fixture
def signed(make_model, tmp_path, keys):
    """A model folder with its evidence, signed."""
    folder = tmp_path / "models" / "model"
    make_model(folder)
    write_evidence(folder, {"gate_verdict": "pass", "reason": "표본이 충분하다"})
    sign_folder(folder, keys[0])
    return folder


def test_what_was_signed_is_let_in_with_its_evidence(signed, keys):
    verify_folder(signed, keys[1])
    assert read_evidence(signed) == {"gate_verdict": "pass", "reason": "표본이 충분하다"}


def test_a_signature_does_not_change_what_a_model_is(signed, make_model, tmp_path):
    unsigned = make_model(tmp_path / "unsigned")
    assert read_manifest(signed).digest == unsigned.digest
    assert write_manifest(signed, MODEL_KIND, unsigned.facts).digest == unsigned.digest


def _alter(folder):
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")


def _alter_the_evidence(folder):
    write_evidence(folder, {"gate_verdict": "fail"})


def _alter_the_signature(folder):
    path = folder / "signature.json"
    text = path.read_text()
    at = text.index('"sig":"') + 20
    path.write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_alter, "Hash mismatch for 'model.onnx'"),
        (_alter_the_evidence, "Hash mismatch for 'evidence.json'"),
        (_alter_the_signature, "not what was signed"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "Missing files.*tokenizer.json"),
        (lambda folder: (folder / "evidence.json").unlink(), "Missing files.*evidence.json"),
        (lambda folder: (folder / "더하기.json").write_text("{}"), "Extra files.*더하기.json"),
        (lambda folder: (folder / ".gitignore").write_text("x"), "Extra files.*gitignore"),
        (lambda folder: (folder / "signature.json").unlink(), "is unsigned"),
        (lambda folder: (folder / "signature.json").write_text(""), "not what was signed"),
        (lambda folder: (folder / "signature.json").write_text("[]"), "not what was signed"),
        (lambda folder: (folder / "signature.json").write_text("{}"), "not what was signed"),
        (lambda folder: (folder / "link.json").symlink_to("model.onnx"), "not what was signed"),
    ],
)
def test_whatever_was_not_signed_is_refused(signed, keys, harm, message):
    harm(signed)
    with pytest.raises(ArtifactError, match=message):
        verify_folder(signed, keys[1])


def test_engines_built_where_it_serves_are_no_strangers(signed, keys):
    (signed / PLAN_FOLDER).mkdir()
    (signed / PLAN_FOLDER / "fp16.plan").write_bytes(b"built here")
    verify_folder(signed, keys[1])


def test_another_key_is_refused(signed, tmp_path):
    signing_key(tmp_path / "other", {})
    with pytest.raises(ArtifactError, match=r"(?s)other/signing.*Key mismatch"):
        verify_folder(signed, verification_key(tmp_path / "other", {}))


def test_a_machine_makes_one_pair_of_keys_for_its_owner_only(tmp_path):
    first = signing_key(tmp_path, {})
    text = first.read_bytes()
    assert signing_key(tmp_path, {}) == first
    assert first.read_bytes() == text
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert sorted(path.name for path in first.parent.iterdir()) == ["signing_key.pem"]


def test_keys_that_are_named_win(tmp_path, keys):
    named = {"MATJIP_SIGNING_KEY": str(keys[0]), "MATJIP_VERIFY_KEY": str(keys[1])}
    assert signing_key(tmp_path / "elsewhere", named) == keys[0]
    assert verification_key(tmp_path / "elsewhere", named) == keys[1]
    derived = verification_key(tmp_path / "elsewhere", {"MATJIP_SIGNING_KEY": str(keys[0])})
    assert derived.read_bytes() == keys[1].read_bytes()
    assert not (tmp_path / "elsewhere/signing/signing_key.pem").exists()


def test_a_machine_that_knows_no_key_says_which_to_set(tmp_path):
    with pytest.raises(SettingsError, match="MATJIP_VERIFY_KEY is not set"):
        verification_key(tmp_path, {})


def _write(path, key):
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def test_a_key_that_is_none_is_refused(tmp_path, signed):
    path = tmp_path / "key.pem"
    for write in (
        lambda: path.unlink(missing_ok=True),
        lambda: path.write_text("열쇠"),
        lambda: _write(path, ed25519.Ed25519PrivateKey.generate()),
        lambda: _write(path, ec.generate_private_key(ec.SECP256K1())),
    ):
        write()
        with pytest.raises(SettingsError, match="no private key"):
            signing_key(tmp_path, {"MATJIP_SIGNING_KEY": str(path)})
        with pytest.raises(SettingsError, match="no private key"):
            sign_folder(signed, path)
        with pytest.raises(SettingsError, match="no public key"):
            verify_folder(signed, path)


def test_a_folder_that_cannot_be_written_gets_no_key(tmp_path):
    (tmp_path / "signing").write_text("a file")
    with pytest.raises(SettingsError, match="MATJIP_SIGNING_KEY"):
        signing_key(tmp_path, {})


def test_evidence_that_is_none_is_refused(signed):
    (signed / "evidence.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="is no evidence"):
        read_evidence(signed)


def test_before_loading_the_key_that_is_set_counts(signed, keys, tmp_path):
    check_before_loading(signed, keys[1])
    signing_key(tmp_path / "other", {})
    other = verification_key(tmp_path / "other", {})
    with pytest.raises(ArtifactError, match="Key mismatch"):
        check_before_loading(signed, other)
    (signed.parent / VERIFY_KEY_NAME).write_bytes(other.read_bytes())
    check_before_loading(signed, keys[1])
    with pytest.raises(ArtifactError, match="Key mismatch"):
        check_before_loading(signed, None)


def test_before_loading_a_signature_without_a_key_is_refused(signed):
    with pytest.raises(ArtifactError, match="no public key to check it with; set MATJIP_VERIFY"):
        check_before_loading(signed, None)


def test_before_loading_an_unsigned_folder_passes_only_where_no_key_is_known(signed, keys):
    (signed / "signature.json").unlink()
    check_before_loading(signed, None)
    (signed.parent / VERIFY_KEY_NAME).write_bytes(keys[1].read_bytes())
    with pytest.raises(ArtifactError, match="is unsigned"):
        check_before_loading(signed, None)


def test_the_gateway_loads_no_model_that_is_unsigned_or_altered(tiny_models, keys, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    for path in tiny_models["champion"].iterdir():
        os.link(path, folder / path.name)
    arm = Arm(
        name="champion",
        model_name="sentiment",
        version="1",
        folder=folder,
        manifest_digest=read_manifest(folder).digest,
        evidence_id="e1",
        share=1.0,
    )
    told = read_settings({"MATJIP_VERIFY_KEY": str(keys[1])})
    load_arm(arm, ServingSettings())
    with pytest.raises(ArtifactError, match="is unsigned"):
        load_arm(arm, told)
    write_evidence(folder, {"gate_verdict": "pass"})
    sign_folder(folder, keys[0])
    assert load_arm(arm, told).analyze(["국물이 맛있어요"])
    write_evidence(folder, {"gate_verdict": "fail"})
    with pytest.raises(ArtifactError, match=r"Hash mismatch for 'evidence\.json'"):
        load_arm(arm, told)
