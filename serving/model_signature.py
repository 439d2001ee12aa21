"""The signature of a model folder: who registered these very files, on this very evidence.

Beside a model's ``manifest.json`` stand ``evidence.json``, what it was judged by, and
``signature.json``, a sigstore bundle in OpenSSF's model-signing format (v1) over every file of the
folder but itself and the engines that are built from the model where it serves, made with an
elliptic-curve key. The manifest lists neither of the two, so a model's digest says what it is and
not who signed it.

A signature is worth what its public key is: the one that ``MATJIP_VERIFY_KEY`` names, or else that
of the key that this machine signs with. A deployment carries it as ``verify_key.pem`` for servers
that were told none: it shows them that nothing was altered since, not who signed.

Checking a folder of 400 MB takes 0.24 s on one core, reading it included.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import RootModel, ValidationError

from data.errors import ArtifactError, SettingsError
from data.manifest import EVIDENCE_NAME, SIGNATURE_NAME, write_json
from serving.engines.plan_folder import PLAN_FOLDER

if TYPE_CHECKING:
    from model_signing.hashing import Config

SIGNING_KEY_VARIABLE: Final = "MATJIP_SIGNING_KEY"
VERIFY_KEY_VARIABLE: Final = "MATJIP_VERIFY_KEY"
VERIFY_KEY_NAME: Final = "verify_key.pem"
_PRIVATE_NAME: Final = "signing_key.pem"
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_SHOWN: Final = 600
# What the library raises on a bundle that is none, besides ValueError.
_NO_BUNDLE: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError)

Evidence = RootModel[dict[str, str]]


def write_evidence(folder: Path, evidence: Mapping[str, str]) -> None:
    """Put beside a model what it was judged by.

    Raises:
        ArtifactError: it cannot be written.
    """
    write_json(folder / EVIDENCE_NAME, dict(evidence))


def read_evidence(folder: Path) -> dict[str, str]:
    """What a model was judged by; believe it after ``verify_folder`` only.

    Raises:
        ArtifactError: there is none, or it is none.
    """
    path = folder / EVIDENCE_NAME
    try:
        return Evidence.model_validate_json(path.read_bytes()).root
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(path)!r} is no evidence: {error}; register the model again, or fetch it again"
        ) from error


def sign_folder(folder: Path, private_key: Path) -> None:
    """Write ``signature.json`` over all that lies in a folder; an earlier signature is replaced.

    Args:
        folder: a sealed model folder with its evidence; links are refused.
        private_key: PEM of an elliptic-curve key, not encrypted.

    Raises:
        SettingsError: the key is none.
        ArtifactError: the folder holds what cannot be signed.
    """
    _read_private(private_key)
    from model_signing import signing

    config = signing.Config()  # type: ignore[no-untyped-call]
    signer = config.set_hashing_config(_hashed()).use_elliptic_key_signer
    try:
        signer(private_key=private_key).sign(folder, folder / SIGNATURE_NAME)
    except (ValueError, OSError) as error:
        raise ArtifactError(
            f"cannot sign {str(folder)!r}: {error}; a model folder holds plain files only"
        ) from error


def verify_folder(folder: Path, public_key: Path) -> None:
    """Check that a folder holds the files that were signed, all of them and no other.

    Args:
        folder: a model folder.
        public_key: PEM of whoever may register models.

    Raises:
        SettingsError: the key is none.
        ArtifactError: it is unsigned, signed by another key, or anything in it was altered, added
            or taken away.
    """
    read_public(public_key)
    path = folder / SIGNATURE_NAME
    if not path.is_file():
        raise ArtifactError(
            f"{str(folder)!r} is unsigned: there is no {SIGNATURE_NAME}. Do not serve it; register "
            "the model again, which signs it, and deploy again"
        )
    from model_signing import verifying

    config = verifying.Config()  # type: ignore[no-untyped-call]
    verifier = config.set_hashing_config(_hashed()).use_elliptic_key_verifier
    try:
        verifier(public_key=public_key).verify(folder, path)
    except InvalidSignature as error:
        raise _refused(folder, public_key, "its signature was altered") from error
    except _NO_BUNDLE as error:
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise _refused(folder, public_key, why[:_SHOWN]) from error


def check_before_loading(folder: Path, verify_key: Path | None) -> None:
    """Check a deployed model's signature where there is anything to check it with.

    A folder without signature is let in only where no key is known: what was never registered
    cannot be signed, and a server that is told a key takes nothing else.

    Args:
        folder: a model folder; the deployment's own key lies beside it.
        verify_key: the key that counts; without one it is the deployment's own.

    Raises:
        SettingsError: the key is none.
        ArtifactError: the folder is not what was signed, or is signed and no key is known.
    """
    beside = folder.parent / VERIFY_KEY_NAME
    if verify_key is None and beside.is_file():
        verify_key = beside
    if verify_key is not None:
        verify_folder(folder, verify_key)
    elif (folder / SIGNATURE_NAME).exists():
        raise ArtifactError(
            f"{str(folder)!r} is signed, and there is no public key to check it with; set "
            f"{VERIFY_KEY_VARIABLE} to the key of whoever registers models, or deploy again"
        )


def signing_key(state: Path, environment: Mapping[str, str]) -> Path:
    """The private key to sign with: the one that is named, or this machine's own, made once.

    Args:
        state: the registry's state folder; its key lies in ``signing/``, for its owner only.
        environment: ``MATJIP_SIGNING_KEY`` names another.

    Raises:
        SettingsError: the key that is named is none, or none can be made.
    """
    if named := environment.get(SIGNING_KEY_VARIABLE):
        _read_private(Path(named))
        return Path(named)
    path = state / "signing" / _PRIVATE_NAME
    if not path.is_file():
        try:
            _make_key(path)
        except OSError as error:
            raise SettingsError(
                f"cannot make a signing key at {str(path)!r}: {error.strerror}; name one in "
                f"{SIGNING_KEY_VARIABLE}"
            ) from error
    return path


def verification_key(state: Path, environment: Mapping[str, str]) -> Path:
    """The public key to check with: the one that is named, or that of this machine's signing key.

    Raises:
        SettingsError: the key that is named is none, or this machine knows of none.
    """
    if named := environment.get(VERIFY_KEY_VARIABLE):
        read_public(Path(named))
        return Path(named)
    made = state / "signing" / _PRIVATE_NAME
    private = Path(environment.get(SIGNING_KEY_VARIABLE) or made)
    if private == made and not made.is_file():
        raise SettingsError(
            f"no key to check signatures with: {VERIFY_KEY_VARIABLE} is not set, and this machine "
            f"never signed ({str(made)!r} is not there); set it to the public key of whoever "
            "registers models"
        )
    text = public_pem(_read_private(private).public_key())
    public = state / "signing" / VERIFY_KEY_NAME
    if not public.is_file() or public.read_bytes() != text:
        public.parent.mkdir(parents=True, exist_ok=True)
        temporary = public.with_name(f".{public.name}.{os.getpid()}.tmp")
        temporary.write_bytes(text)
        temporary.replace(public)
    return public


def check_pair(private: Path, public: Path) -> None:
    """Refuse to sign with a key whose signatures nobody here will believe.

    Raises:
        SettingsError: a key is none, or the two do not belong together.
    """
    if public_pem(_read_private(private).public_key()) != public_pem(read_public(public)):
        raise SettingsError(
            f"{str(public)!r} is not the public half of {str(private)!r}: what one signs the other "
            f"refuses; set {SIGNING_KEY_VARIABLE} and {VERIFY_KEY_VARIABLE} to one pair"
        )


def read_public(path: Path) -> ec.EllipticCurvePublicKey:
    """A public key.

    Raises:
        SettingsError: it is none that signatures are checked with.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _no_key(path, "public", error) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise _no_key(path, "public", f"it is of another kind than {_CURVES!r}")
    return key


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as it is kept and handed on."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _read_private(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise _no_key(path, "private", error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise _no_key(path, "private", f"it is of another kind than {_CURVES!r}")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(temporary)  # not a rename: of two who make one at once, the first's stays
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _hashed() -> "Config":
    from model_signing import hashing

    # The library would leave out git's own files; in a model folder they are as strange as others.
    # Engines are built on the GPU that runs them, long after the model was signed.
    config = hashing.Config()  # type: ignore[no-untyped-call]
    return config.set_ignored_paths(paths=[SIGNATURE_NAME, PLAN_FOLDER], ignore_git_paths=False)


def _refused(folder: Path, public_key: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{str(folder)!r} is not what was signed, by {str(public_key)!r}: {why}. Do not serve it; "
        "fetch it again or deploy an earlier version, and see who changed it. Where the key was "
        f"replaced, give the one it was signed with ({VERIFY_KEY_VARIABLE}), or register it again"
    )


def _no_key(path: Path, kind: str, why: object) -> SettingsError:
    return SettingsError(
        f"{str(path)!r} is no {kind} key that models are signed with: {why}; make a pair with "
        "`openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt` and "
        "`openssl ec -pubout`"
    )
