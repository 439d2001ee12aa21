"""What `make serve` serves and watches: the phase of an experiment, or what a run deployed last.

Whatever they came from, classifiers are served from ``live/deployment.json``, and language models
from ``live/language_deployment.json``: the files that `make experiment` writes, so that a gateway
takes a phase as it opens.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from data.errors import SettingsError
from pipelines.deployments import CLASSIFIER, LANGUAGE, latest_deployments
from pipelines.local import Home
from serving.deployment import read_deployment
from serving.experiments.catalogue import Catalogue
from serving.experiments.routes import DeploymentKind
from serving.language_deployment import read_language_deployment
from serving.registry.language_deploy import DEPLOYMENT_NAME
from serving.registry.phases import CLASSIFIER_NAME, mend, put_live, served_experiments

_FILES: Final[dict[DeploymentKind, tuple[str, str]]] = {
    "sentiment": (CLASSIFIER, CLASSIFIER_NAME),
    "language": (LANGUAGE, DEPLOYMENT_NAME),
}


@dataclass(frozen=True)
class Served:
    """The gateway's options with their files, and what a person should know of the choice."""

    deployments: Mapping[str, Path]
    notes: tuple[str, ...] = ()


def live_folder(home: Home) -> Path:
    """What `make experiment` writes and `make serve` watches: ``MATJIP_LIVE``, else ``live/``."""
    return Path(os.environ.get("MATJIP_LIVE") or home.root / "live").resolve()


def deployments_to_serve(home: Home) -> Served:
    """The newest deployment of each kind, those of experiments among them.

    A running experiment is served whatever was deployed since, or its units would be answered by
    other models than it compares.

    Raises:
        SettingsError: there is none of any kind.
        ExperimentError: the store or a deployment cannot be read.
    """
    live = live_folder(home)
    running = _mended(home, live)
    try:
        found = latest_deployments(home)
    except SettingsError:
        found = {}
        if not any((live / name).is_file() for _, name in _FILES.values()):
            raise
    notes = []
    for kind, (option, name) in _FILES.items():
        ours, of_run, experiment = live / name, found.get(option), running.get(kind)
        is_newer = of_run is not None and _is_newer(option, of_run, ours)
        if experiment is not None:
            found[option] = ours
            if is_newer:
                notes.append(
                    f"experiment {experiment!r} is served; {str(of_run)!r}, deployed since, waits "
                    f'until it has ended (make experiment ARGS="show {experiment}")'
                )
        elif ours.is_file() and not is_newer:
            found[option] = ours
        if option in found and found[option] != ours:
            found[option] = put_live(found[option], live, kind)
    return Served(found, tuple(notes))


def _mended(home: Home, live: Path) -> dict[DeploymentKind, str]:
    """The experiments that are served from a live folder, after it was brought up to date."""
    if not (live / "phases").is_dir():
        return {}
    catalogue = Catalogue(home.store_url)
    try:
        mend(catalogue, live)
        return served_experiments(catalogue, live)
    finally:
        catalogue.close()


def _is_newer(option: str, of_run: Path, ours: Path) -> bool:
    return not ours.is_file() or _created(option, of_run) > _created(option, ours)


def _created(option: str, file: Path) -> datetime:
    if option == CLASSIFIER:
        return read_deployment(file).created_at
    return read_language_deployment(file).created_at
