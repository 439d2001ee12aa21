"""The models of a run's deployment, each with an engine chosen for this machine."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from data.errors import EngineError, SettingsError
from pipelines.demo import deployments_of
from pipelines.local import RunRecord
from serving.deployment import read_deployment


def classifiers_of(record: RunRecord) -> list[Path]:
    """Folders of the classifiers that a run deployed.

    Raises:
        SettingsError: it has deployed none.
    """
    options = deployments_of(record)
    pairs = dict(zip(options[::2], options[1::2], strict=True))
    if "--deployment" not in pairs:
        raise SettingsError(
            f"run {record.run_id!r} has deployed no classifier; name a folder: "
            "make tune-engine MODEL=folder"
        )
    return [arm.folder for arm in read_deployment(Path(pairs["--deployment"])).arms]


def tune_engines(record: RunRecord, arguments: Sequence[str]) -> None:
    """Choose the engines of a run's classifiers, each in a process of its own.

    Raises:
        SettingsError: the run has deployed none.
        EngineError: no engine of a model keeps to the quality budget.
    """
    for folder in classifiers_of(record):
        command = [sys.executable, "-m", "serving.engines.tune", str(folder), *arguments]
        if subprocess.run(command, check=False).returncode:
            raise EngineError(f"no engine was chosen for {str(folder)!r}; the lines above say why")
