"""The models of deployments, each with an engine chosen for this machine."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.errors import EngineError, SettingsError
from pipelines.deployments import CLASSIFIER, EMBEDDING
from serving.deployment import read_deployment
from serving.embedding_deployment import read_embedding_deployment


def tunable_models(deployments: Mapping[str, Path]) -> list[Path]:
    """Folders of the classifiers and the embedding model of deployments, no folder twice.

    Args:
        deployments: the gateway's options, each with its file (pipelines/deployments.py).

    Raises:
        SettingsError: they hold neither; a language model has no engines to choose from.
        ArtifactError: a deployment's file is missing.
    """
    folders = []
    if path := deployments.get(CLASSIFIER):
        folders += [arm.folder for arm in read_deployment(path).arms]
    if path := deployments.get(EMBEDDING):
        folders.append(read_embedding_deployment(path).folder)
    if not folders:
        raise SettingsError(
            f"only {list(deployments)!r} was deployed, and engines are chosen for classifiers and "
            "embedding models; run `make demo` or `make embedding`, or name a folder: "
            "make tune-engine MODEL=folder"
        )
    return list(dict.fromkeys(folders))


def tune_engines(deployments: Mapping[str, Path], arguments: Sequence[str]) -> None:
    """Choose the engines of deployed models, each in a process of its own.

    Raises:
        SettingsError: no model has engines to choose from.
        EngineError: no engine of a model keeps to the quality budget.
    """
    for folder in tunable_models(deployments):
        command = [sys.executable, "-m", "serving.engines.tune", str(folder), *arguments]
        if subprocess.run(command, check=False).returncode:
            raise EngineError(f"no engine was chosen for {str(folder)!r}; the lines above say why")
