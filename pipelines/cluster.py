"""The graphs for a Kubeflow cluster: compiled to files, or sent to its API."""

from pathlib import Path
from typing import Any, Final

import yaml
from kfp import Client, compiler

from data.errors import MatjipError, SettingsError
from pipelines.build_engine import build_engine
from pipelines.compare_and_promote import compare_and_promote
from pipelines.placement import Placement, read_placement, unknown_steps
from pipelines.train_and_deploy import train_and_deploy
from pipelines.train_embedding import train_embedding
from pipelines.train_encoder import train_encoder
from pipelines.train_language import train_language
from pipelines.tune import tune_encoder, tune_language
from training.language_recipe import language_recipe_text
from training.recipe import read_recipe

GRAPHS: Final = {
    "train-and-deploy": train_and_deploy,
    "train-encoder": train_encoder,
    "train-language": train_language,
    "train-embedding": train_embedding,
    "build-engine": build_engine,
    "compare-and-promote": compare_and_promote,
    "tune-encoder": tune_encoder,
    "tune-language": tune_language,
}
ON_CLUSTER: Final = {
    "tracking_uri": "http://mlflow.mlflow.svc.cluster.local:5000",
    "checkpoints": "/matjip/checkpoints",
    "models": "/matjip/models",
}
"""Where things are unless --set says otherwise; the volume is pipelines/placement.yaml's."""


class SubmitError(MatjipError):
    """The Kubeflow server did not take the graph."""


def checked_host(host: str, target: str) -> None:
    """Refuse what is no address.

    Raises:
        SettingsError: it is none.
    """
    if not host.startswith(("http://", "https://")):
        raise SettingsError(
            f"--host is {host!r}; give the API's address: make {target} HOST=http://…"
        )


def checked_placement(path: Path) -> Placement:
    """A placement whose every step is one of a graph's.

    Raises:
        SettingsError: the placement is wrong, or names a step that no graph has.
    """
    placement = read_placement(path)
    steps = {
        name.replace("-", "_"): None
        for build in GRAPHS.values()
        for name in build(placement).pipeline_spec.root.dag.tasks
    }
    if unknown := unknown_steps(placement, steps):
        raise SettingsError(f"{str(path)!r}: no steps {unknown!r}; the steps are {sorted(steps)}")
    return placement


def compile_graphs(placement: Path, out: Path) -> list[Path]:
    """Write each graph's IR, and its Kubernetes settings as the second document of the same file.

    Raises:
        SettingsError: the placement is wrong, or names a step that no graph has.
    """
    checked = checked_placement(placement)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, build in GRAPHS.items():
        path = out / f"{name}.yaml"
        compiler.Compiler().compile(build(checked), str(path))
        paths.append(path)
    return paths


def submit_graph(
    host: str, placement: Path, *, recipe: str, language_recipe: str, given: dict[str, Any]
) -> str:
    """Send ``train_and_deploy``; returns the run's address.

    Raises:
        SettingsError: no host, or an argument that the graph needs is missing.
        SubmitError: the server cannot be reached, or refused.
    """
    checked_host(host, "submit")
    checked = checked_placement(placement)
    graph = train_and_deploy(checked)
    recipes = {
        "recipe": read_recipe(recipe),
        "language_recipe": language_recipe_text(language_recipe),
    }
    arguments = ON_CLUSTER | recipes | given
    inputs = graph.pipeline_spec.root.input_definitions.parameters
    missing = [n for n, p in inputs.items() if not p.is_optional and n not in arguments]
    if missing:
        raise SettingsError(
            f"the graph also needs {missing!r}: pass --set labels=URI --set labels_digest=SHA256 "
            "(and --set summaries=URI --set summaries_digest=SHA256 where there are any), so that "
            "changed ones are not taken from the cache"
        )
    try:
        run = Client(host=host).create_run_from_pipeline_func(
            graph, arguments=arguments, experiment_name="matjip"
        )
    except Exception as error:  # the client raises urllib3's, its own and plain ValueErrors
        raise SubmitError(f"{host!r} did not take the graph: {error}; check the address") from error
    return f"{host}/#/runs/details/{run.run_id}"


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a compiled graph: the IR, and Kubernetes settings if there are any."""
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d]
