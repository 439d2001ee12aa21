"""The phases of experiments, put to work: from an event to the file that a gateway watches.

    prepare   models fetched and checked, LIVE/phases/DEPLOYMENT/ written: nobody is answered by it
    commit    one transaction in the catalogue: the event, and the deployment that serves its phase
    apply     LIVE/deployment.json says so, whole or not at all, and the gateway swaps it in

Killed before the commit, nothing has happened, and the same command goes on; killed after it, the
next command of any kind applies what was committed (``mend``). A live folder belongs to the
gateways that watch it, and serves one experiment of each kind of model at a time.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import filelock

from data.errors import ArtifactError, ExperimentError
from data.settings import check_settings
from serving.deployment import Deployment, read_deployment, write_deployment
from serving.experiments.catalogue import Catalogue, Entry, Served
from serving.experiments.lifecycle import ENDED, Action, Event
from serving.experiments.routes import DeploymentKind
from serving.language_deployment import (
    LanguageArm,
    LanguageDeployment,
    read_language_deployment,
    write_language_deployment,
)
from serving.registry.connection import Registry
from serving.registry.language_deploy import DEPLOYMENT_NAME as LANGUAGE_NAME
from serving.registry.phase_arms import (
    PhaseDeployment,
    kept_arms,
    phase_deployment,
    resolve_arms,
)

DEFAULT_LIVE: Final = Path("var/live")
CLASSIFIER_NAME: Final = "deployment.json"
_NAMES: Final[dict[DeploymentKind, str]] = {
    "sentiment": CLASSIFIER_NAME,
    "language": LANGUAGE_NAME,
}
_LOCK_TIMEOUT_S: Final = 600  # fetching a large model takes minutes


def open_phase(
    registry: Registry,
    catalogue: Catalogue,
    name: str,
    action: Action,
    *,
    by: str,
    reason: str,
    allocation: Mapping[str, float] | None = None,
    after: int | None = None,
    live: Path,
    work: Path,
) -> Entry:
    """Start an experiment, advance it, or deal its units anew: a phase opens and is served.

    Args:
        registry: where its models are.
        catalogue: where it is agreed.
        name: the experiment.
        action: start, advance or reallocate.
        by: a person, or the part that does it.
        reason: why.
        allocation: arm → share, to reallocate.
        after: how many events whoever decided has seen; None takes those there are.
        live: folder that the gateway watches.
        work: folder that keeps fetched models from one run to the next.

    Returns:
        The experiment, with its phase open.

    Raises:
        ExperimentError: that may not be done now, somebody acted meanwhile, the arms cannot be
            compared, or another experiment is served from this folder.
        RegistryError: a model names nothing or is not what was registered, or MLflow is away.
        SettingsError: there is no such event.
    """
    event = event_of(name, action, by=by, reason=reason, allocation=allocation)
    live = live.resolve()
    with _alone(live):
        mend(catalogue, live)
        entry = catalogue.get(name)
        seen = entry.lifecycle.events if after is None else after
        opened = entry.lifecycle.after(event)  # refused before anything is fetched
        first = served_by(catalogue, entry)
        if first is None:
            versions = resolve_arms(registry, opened.specification)
        else:
            versions = kept_arms(registry, first)
        deployment = phase_deployment(
            registry,
            opened,
            versions,
            version=entry.version,
            salt=catalogue.salt(),
            work=work,
            live=live,
        )
        kind = _kind(deployment)
        _check_free(catalogue, live, name, kind)
        _write(_prepared(live, deployment.deployment_id) / _NAMES[kind], deployment, live)
        content = deployment.model_dump(mode="json")
        served = Served(kind, deployment.deployment_id, content)
        committed = catalogue.record(name, event, after=seen, serves=served)
        mend(catalogue, live)
    return committed


def event_of(name: str, action: Action, **said: Any) -> Event:
    """An event, refused with all that is wrong with it.

    Raises:
        SettingsError: names every wrong part.
    """
    where = f"{action} of experiment {name!r}"
    return check_settings(Event, {"action": action} | said, where=where)


def served_by(catalogue: Catalogue, entry: Entry) -> Mapping[str, Any] | None:
    """The file's content of the deployment that serves an experiment's last phase, if one does.

    Raises:
        ExperimentError: the database cannot be read, or the deployment is not in it.
    """
    phase = entry.lifecycle.current
    if phase is None or phase.deployment_id is None:
        return None
    found = catalogue.deployment(phase.deployment_id)
    if found is None:
        raise ExperimentError(
            f"experiment {entry.lifecycle.specification.name!r} is served by deployment "
            f"{phase.deployment_id!r}, which {catalogue.name!r} does not hold; restore the database"
        )
    return found.content


def mend(catalogue: Catalogue, live: Path) -> list[Path]:
    """Let a live folder say what the catalogue says: applies what was committed before a kill.

    Args:
        catalogue: of the experiments that are served from there.
        live: the folder.

    Returns:
        The deployment files that were written.

    Raises:
        ExperimentError: the database cannot be read, or a prepared deployment was edited.
        ArtifactError: a file cannot be written.
    """
    live = live.resolve()
    if not list(_behind(catalogue, live)):  # asks for no lock where there is nothing to write
        return []
    with _alone(live):
        written = list(_behind(catalogue, live))
        for file, prepared, kind in written:
            _write(file, _read(prepared, kind), live)
    return [file for file, _, _ in written]


def served_experiments(catalogue: Catalogue, live: Path) -> dict[DeploymentKind, str]:
    """Kind of model → the experiment that is served from a live folder, running or paused.

    Raises:
        ExperimentError: the database cannot be read.
    """
    return {kind: name for kind, name, _ in _running(catalogue, live.resolve())}


def put_live(source: Path, live: Path, kind: DeploymentKind = "sentiment") -> Path:
    """Let a live folder serve what was deployed without an experiment.

    Args:
        source: its deployment file.
        live: the folder; the models stay where they are.
        kind: of the models.

    Returns:
        The file that the gateway watches.

    Raises:
        ArtifactError: there is no such file, or the folder cannot be written.
        ExperimentError: it is no deployment of that kind.
    """
    live = live.resolve()
    deployment = _read(source, kind)
    file = live / _NAMES[kind]
    with _alone(live):
        if _id_of(file, kind) != deployment.deployment_id:
            _write(file, deployment, live)
    return file


def live_id(live: Path, kind: DeploymentKind = "sentiment") -> str | None:
    """Which deployment of a kind a live folder says; None where there is none to be read."""
    return _id_of(live / _NAMES[kind], kind)


def _behind(catalogue: Catalogue, live: Path) -> Iterator[tuple[Path, Path, DeploymentKind]]:
    """The files that do not say what is committed, and those that were prepared to."""
    for kind, _, deployment_id in _running(catalogue, live):
        file = live / _NAMES[kind]
        if _id_of(file, kind) != deployment_id:
            yield file, _prepared(live, deployment_id) / _NAMES[kind], kind


def _running(catalogue: Catalogue, live: Path) -> Iterator[tuple[DeploymentKind, str, str]]:
    """Kind, experiment and deployment of the phases that are open and were prepared here."""
    for entry in catalogue.list():
        phase = entry.lifecycle.current
        if entry.lifecycle.state in ENDED or phase is None or phase.deployment_id is None:
            continue
        for kind, file in _NAMES.items():
            # Another folder's gateways may serve another experiment of the same catalogue.
            if (_prepared(live, phase.deployment_id) / file).is_file():
                yield kind, entry.lifecycle.specification.name, phase.deployment_id


def _check_free(catalogue: Catalogue, live: Path, name: str, kind: DeploymentKind) -> None:
    for other_kind, other, _ in _running(catalogue, live):
        if other_kind == kind and other != name:
            raise ExperimentError(
                f"experiment {other!r} is served from {str(live)!r}, and a gateway serves one "
                f"experiment of a kind at a time; end {other!r} first, or serve {name!r} from "
                "another folder, with a gateway of its own"
            )


def _prepared(live: Path, deployment_id: str) -> Path:
    return live / "phases" / deployment_id


def _kind(deployment: PhaseDeployment) -> DeploymentKind:
    return "sentiment" if isinstance(deployment, Deployment) else "language"


def _read(file: Path, kind: DeploymentKind) -> PhaseDeployment:
    return read_deployment(file) if kind == "sentiment" else read_language_deployment(file)


def _id_of(file: Path, kind: DeploymentKind) -> str | None:
    """Which deployment a file says; None where there is none that can be read."""
    try:
        return _read(file, kind).deployment_id
    except (ArtifactError, ExperimentError):
        return None


def _write(file: Path, deployment: PhaseDeployment, live: Path) -> None:
    """Write a deployment whose folders are absolute or relative to the live folder."""
    here = file.parent
    if isinstance(deployment, LanguageDeployment):
        asked = tuple(_moved(arm, here, live) for arm in deployment.arms)
        write_language_deployment(file, deployment.model_copy(update={"arms": asked}))
        return
    folders = {arm.name: _from(here, live / arm.folder) for arm in deployment.arms}
    moved = tuple(arm.model_copy(update={"folder": folders[arm.name]}) for arm in deployment.arms)
    write_deployment(file, deployment.model_copy(update={"arms": moved}))


def _moved(arm: LanguageArm, here: Path, live: Path) -> LanguageArm:
    endpoint = arm.endpoint
    if endpoint.kind == "openai":
        return arm
    found = {
        "folder": _from(here, live / endpoint.folder),
        "adapter": _from(here, live / endpoint.adapter) if endpoint.adapter else None,
    }
    return arm.model_copy(update={"endpoint": endpoint.model_copy(update=found)})


def _from(here: Path, folder: Path) -> Path:
    """A folder as seen from another, so that both may be moved together."""
    return Path(os.path.relpath(folder, here))


@contextmanager
def _alone(live: Path) -> Iterator[None]:
    """Keep other commands from writing in this folder meanwhile; may be nested.

    Raises:
        ArtifactError: the folder cannot be made, or another command has been at it for minutes.
    """
    try:
        live.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(live / ".lock", timeout=_LOCK_TIMEOUT_S, is_singleton=True):
            yield
    except filelock.Timeout as error:
        raise ArtifactError(
            f"another command has held {str(live / '.lock')!r} for ten minutes; wait for it"
        ) from error
    except OSError as error:
        raise ArtifactError(
            f"cannot write in {str(live)!r}: {error.strerror}; name another folder, or give it room"
        ) from error
