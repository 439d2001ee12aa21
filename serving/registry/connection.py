"""The connection to MLflow: one registry, its errors, its lock, and the runs logged to it.

The only module that imports MLflow. Versions are registered and fetched by versions.py; aliases are
moved by aliases.py only.
"""

import os
import re
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import filelock
import httpx
import orjson
import tenacity
from sqlalchemy.exc import SQLAlchemyError

from data.errors import RegistryError
from data.manifest import MANIFEST_NAME, Manifest, canonical_digest
from serving.registry.signature import Signature

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

DEFAULT_TRACKING_URI: Final = "sqlite:///var/mlflow/mlflow.db"
DEFAULT_STATE_FOLDER: Final = Path("var/mlflow")
KEY_TAG: Final = "matjip.idempotency_key"
_KEY_PATTERN: Final = re.compile(r"[\w.:/@+-]{1,200}", re.ASCII)
_PROBE_TIMEOUT_S: Final = 2.0
_PROBE_FOR_S: Final = 5.0
_LOCK_TIMEOUT_S: Final = 600  # uploading a large model to a far store takes minutes
_BATCH: Final = 100
_DATABASES: Final = ("sqlite", "postgresql", "mysql", "mssql")
# MLflow's client takes these from the environment only, and what is set there already stays. The
# retries ride out a server that restarts within about fourteen seconds; MLflow's own keep a step
# waiting for minutes.
_CLIENT_DEFAULTS: Final = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_LOGIN: Final = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who may"

Metric = float | Sequence[tuple[int, float]]
"""One value, or a curve of (step, value)."""


@dataclass(frozen=True)
class Registry:
    """A connection to a registry.

    Attributes:
        uri: where it is, without user or password.
        state: local folder for the lock, journals, this machine's signing key, the alias ledger's
            copy and, with SQLite, artifacts.
        client: MLflow's client.
    """

    uri: str
    state: Path
    client: "MlflowClient" = field(repr=False)


@dataclass(frozen=True)
class ResolvedVersion:
    """One version of a model: what an alias named when it was asked."""

    name: str
    version: str
    tags: Mapping[str, str]
    source: str
    run_id: str


def connect(
    tracking_uri: str = DEFAULT_TRACKING_URI, *, state: Path = DEFAULT_STATE_FOLDER
) -> Registry:
    """Connect to a registry and see that it answers.

    Args:
        tracking_uri: ``http(s)://host[:port]``, ``sqlite:///path`` of an embedded one, which is
            made if it is not there, or any other that MLflow takes. A server's user and password
            are read by MLflow's client from ``MLFLOW_TRACKING_USERNAME`` and
            ``MLFLOW_TRACKING_PASSWORD``.
        state: local folder; with SQLite it is the database's own folder instead.

    Raises:
        RegistryError: it is not reachable, or MLflow does not take such a URI.
    """
    parts = urllib.parse.urlsplit(tracking_uri)
    secret = parts.netloc.rpartition("@")[0]
    shown = tracking_uri.replace(f"{secret}@", "", 1) if secret else tracking_uri
    state = state_folder(tracking_uri, default=state)
    if parts.scheme == "sqlite":
        tracking_uri = f"sqlite:///{_database(tracking_uri)}"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryError(
            f"cannot make {str(state)!r} for the registry's state: {error.strerror}; name another"
        ) from error
    for variable, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    if parts.scheme in {"http", "https"}:
        _probe(tracking_uri, shown)
    from mlflow import MlflowClient

    with reported(shown, "be opened"):
        client = MlflowClient(tracking_uri, tracking_uri)
    registry = Registry(shown, state, client)
    with reported(shown, "be opened"), locked(registry):  # locked: a new database is migrated
        registry.client.search_registered_models(max_results=1)
    return registry


def state_folder(tracking_uri: str, *, default: Path = DEFAULT_STATE_FOLDER) -> Path:
    """Where a registry's state lies on this machine; asks nobody.

    Args:
        tracking_uri: as for ``connect``.
        default: the folder of those that are not SQLite.
    """
    if urllib.parse.urlsplit(tracking_uri).scheme == "sqlite":
        return _database(tracking_uri).parent
    return default.resolve()


def _database(tracking_uri: str) -> Path:
    return Path(tracking_uri.removeprefix("sqlite:///")).resolve()


def _probe(tracking_uri: str, shown: str) -> None:
    asked = tenacity.Retrying(
        stop=tenacity.stop_after_delay(_PROBE_FOR_S),
        wait=tenacity.wait_exponential(multiplier=0.2, max=1),
        retry=tenacity.retry_if_exception_type(httpx.HTTPError),
        reraise=True,
    )
    try:
        asked(
            lambda: httpx.get(
                f"{tracking_uri.rstrip('/')}/health", timeout=_PROBE_TIMEOUT_S
            ).raise_for_status()
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RegistryError(
            f"MLflow does not answer at {shown!r} ({type(error).__name__}); start it (make mlflow, "
            "or mlflow/README.md) or set MLFLOW_TRACKING_URI to where it runs, then run the step "
            "again: nothing was written"
        ) from error


@contextmanager
def reported(registry: Registry | str, doing: str) -> Iterator[None]:
    """Turn what MLflow, its database, the network and the disk raise into a ``RegistryError``."""
    from mlflow.exceptions import MlflowException

    uri = registry if isinstance(registry, str) else registry.uri
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        code = getattr(error, "error_code", type(error).__name__)
        mend = _LOGIN if code in {"UNAUTHENTICATED", "PERMISSION_DENIED"} else "mend that"
        raise RegistryError(
            f"the registry at {uri!r} could not {doing}: {code}: {str(error)[:500]}; {mend} and "
            "run the step again: it goes on where it stopped and doubles nothing"
        ) from error


@contextmanager
def locked(registry: Registry) -> Iterator[None]:
    """Hold the registry's lock: one writer at a time on this machine; may be nested."""
    path = registry.state / "registry.lock"
    try:
        with filelock.FileLock(path, timeout=_LOCK_TIMEOUT_S, is_singleton=True):
            yield
    except filelock.Timeout as error:
        raise RegistryError(
            f"another process has held {str(path)!r} for ten minutes; wait for it to finish"
        ) from error


def log_run(
    registry: Registry,
    *,
    experiment: str,
    run_name: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, Metric],
    tags: Mapping[str, str],
    artifacts: Mapping[str, Path],
    idempotency_key: str,
) -> str:
    """Log one finished run; the same key gives the same run, whole and not doubled.

    Args:
        registry: where to.
        experiment: its experiment, made if it is not there.
        run_name: what people see.
        params: plain settings.
        metrics: a value, or a curve with steps, by name.
        tags: short facts.
        artifacts: a file or folder by the run's folder to put it in; "" is the top.
        idempotency_key: letters, digits and ``_.:/@+-``; the hash of all that decides the run.

    Returns:
        The run's id.

    Raises:
        RegistryError: MLflow refused or went away; run again, it goes on.
    """
    check_key(idempotency_key)
    with reported(registry, f"log the run {run_name!r}"), locked(registry):
        experiment_id = _experiment_id(registry, experiment)
        run = _run_with_key(registry, experiment_id, idempotency_key)
        if run is None:
            run = registry.client.create_run(
                experiment_id, run_name=run_name, tags={**tags, KEY_TAG: idempotency_key}
            )
        run_id: str = run.info.run_id
        if run.info.status == "FINISHED":
            return run_id
        _log_values(registry, run, params, metrics)
        for where, path in sorted(artifacts.items()):
            if path.is_dir():
                registry.client.log_artifacts(run_id, str(path), where or None)
            else:
                registry.client.log_artifact(run_id, str(path), where or None)
        registry.client.set_terminated(run_id, "FINISHED")
        return run_id


def _log_values(
    registry: Registry, run: "Run", params: Mapping[str, Any], metrics: Mapping[str, Metric]
) -> None:
    from mlflow.entities import Metric as LoggedMetric
    from mlflow.entities import Param

    # One timestamp for all: MLflow keeps a point once if name, step, value and time are equal, so a
    # run that is logged again after a kill has no point twice.
    at = run.info.start_time
    points = []
    for name, values in sorted(metrics.items()):
        curve = [(0, float(values))] if isinstance(values, int | float) else values
        points += [LoggedMetric(name, float(value), at, step) for step, value in curve]
    settings = [Param(name, str(value)) for name, value in sorted(params.items())]
    for start in range(0, max(len(points), len(settings)), _BATCH):
        part = slice(start, start + _BATCH)
        registry.client.log_batch(run.info.run_id, metrics=points[part], params=settings[part])


def store_signature(
    registry: Registry, run_id: str, where: str, manifest: Manifest, signature: Signature
) -> None:
    """Store the ``MLmodel`` file that MLflow's pages read what goes in and comes out from."""
    from mlflow.models import Model, ModelSignature

    # A flavour of our own, without a Python loader: nobody can load the version by running it.
    model = Model(
        artifact_path=where,
        run_id=run_id,
        flavors={"matjip": {"kind": manifest.kind, "manifest": MANIFEST_NAME}},
        signature=ModelSignature.from_dict(
            {
                "inputs": orjson.dumps(signature.inputs).decode(),
                "outputs": orjson.dumps(signature.outputs).decode(),
            }
        ),
        model_size_bytes=sum(entry.bytes for entry in manifest.files.values()),
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save(str(Path(folder) / "MLmodel"))
        registry.client.log_artifact(run_id, str(Path(folder) / "MLmodel"), where)


def ensure_model(registry: Registry, name: str) -> None:
    """Make a registered model unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        registry.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def version_of_alias(registry: Registry, name: str, alias: str) -> ResolvedVersion | None:
    """The version that an alias names now, whatever it is; none if model or alias is not there."""
    from mlflow.exceptions import MlflowException

    with reported(registry, f"resolve {name}@{alias}"):
        try:
            return as_resolved(registry.client.get_model_version_by_alias(name, alias))
        except MlflowException as error:
            # MLflow 3.17 answers a missing alias with INVALID_PARAMETER_VALUE.
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "not found" in error.message:
                return None
            raise


def as_resolved(found: "ModelVersion") -> ResolvedVersion:
    """MLflow's version as ours."""
    return ResolvedVersion(
        name=found.name,
        version=str(found.version),
        tags=dict(found.tags),
        source=found.source or "",
        run_id=found.run_id or "",
    )


def check_key(key: str) -> None:
    """Refuse a key that cannot stand in MLflow's search filters."""
    if not _KEY_PATTERN.fullmatch(key):
        raise RegistryError(
            f"{key!r} cannot be an idempotency key; use 1 to 200 letters, digits or _.:/@+-"
        )


def _experiment_id(registry: Registry, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = registry.client.get_experiment_by_name(name)
    if found is None:
        # A server chooses where artifacts lie; without one MLflow would choose ./mlruns.
        local = registry.uri.split(":")[0].split("+")[0] in _DATABASES
        folder = registry.state / "artifacts" / canonical_digest(name)[:16]
        try:
            made: str = registry.client.create_experiment(name, folder.as_uri() if local else None)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = registry.client.get_experiment_by_name(name)
        else:
            return made
    if found is None or found.lifecycle_stage != "active":
        raise RegistryError(
            f"experiment {name!r} of {registry.uri!r} was deleted; restore it in MLflow, or "
            "name another"
        )
    return str(found.experiment_id)


def _run_with_key(registry: Registry, experiment_id: str, key: str) -> "Run | None":
    found = registry.client.search_runs(
        [experiment_id], f"tags.`{KEY_TAG}` = '{key}'", order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None
