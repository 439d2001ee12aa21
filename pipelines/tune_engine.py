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
    """Choose the engines of deployed models, each in a process of its own, whatever others do.

    Raises:
        SettingsError: no model has engines to choose from.
        EngineError: some could not be tuned; all the others were.
    """
    folders = tunable_models(deployments)
    failed = [str(folder) for folder in folders if not _is_tuned(folder, arguments)]
    if failed:
        raise EngineError(
            f"no engine was chosen for {len(failed)} of {len(folders)} models: {failed!r}; the "
            "lines above say why"
        )


def _is_tuned(folder: Path, arguments: Sequence[str]) -> bool:
    command = [sys.executable, "-m", "serving.engines.tune", str(folder), *arguments]
    return subprocess.run(command, check=False).returncode == 0
