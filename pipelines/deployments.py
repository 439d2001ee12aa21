"""What runs have deployed, as the options of the gateway."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from data.errors import SettingsError
from pipelines.local import Home, RunRecord
from serving.embedding_deployment import EMBEDDING_DEPLOYMENT_NAME
from serving.registry.language_deploy import DEPLOYMENT_NAME

CLASSIFIER: Final = "--deployment"
LANGUAGE: Final = "--language-deployment"
EMBEDDING: Final = "--embedding-deployment"
GRAPHS: Final = ("train-and-deploy", "train-encoder", "train-language", "train-embedding")
"""Those that end with a deployment."""
_WRITTEN: Final = (
    (CLASSIFIER, "deploy-challenger", "deployment.json"),
    (LANGUAGE, "deploy-llm", DEPLOYMENT_NAME),
    (EMBEDDING, "deploy-embedding", EMBEDDING_DEPLOYMENT_NAME),
)
"""Option, the step that writes its file, the file's name."""


def deployed_files(run: RunRecord) -> dict[str, Path]:
    """The gateway's options for what a run deployed, each with its file; none of a refused model.

    Raises:
        SettingsError: a step that deploys has left no output.
    """
    found = {}
    for option, step, name in _WRITTEN:
        if run.step(step) is not None:
            path = run.artifact(step, "deployment") / name
            if path.is_file():
                found[option] = path
    return found


def deployments_of(run: RunRecord) -> dict[str, Path]:
    """``deployed_files`` of a run that must have some.

    Raises:
        SettingsError: the run has deployed nothing.
    """
    found = deployed_files(run)
    if not found:
        raise SettingsError(
            f"run {run.run_id!r} has deployed nothing: no model has passed its gate, or the "
            "run has not come so far; look at its gate.md, or run `make demo`"
        )
    return found


def latest_deployments(home: Home) -> dict[str, Path]:
    """The last deployment of each kind of model, whichever runs they are of.

    Raises:
        SettingsError: there is none of any kind.
    """
    runs = [
        RunRecord.model_validate_json(path.read_bytes())
        for graph in GRAPHS
        for path in home.folder("runs").glob(f"{graph}-*.json")
    ]
    found: dict[str, Path] = {}
    for run in sorted(runs, key=begun):  # a later one takes an earlier one's place
        # A step that failed has a record and no output.
        done = [step for step in run.steps if step.status == "succeeded"]
        found |= deployed_files(run.model_copy(update={"steps": done}))
    if not found:
        raise SettingsError(
            "nothing has been deployed yet; run `make demo`, `make embedding`, or the steps before"
        )
    return found


def begun(run: RunRecord) -> str:
    """When a run began, to be compared with others."""
    return run.run_id.removeprefix(run.graph)


def gateway_options(deployments: Mapping[str, Path]) -> list[str]:
    """The command line of deployments."""
    return [part for option, path in deployments.items() for part in (option, str(path))]
