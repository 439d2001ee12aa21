"""The command behind `make`: run, compile, submit, serve.

python -m pipelines.cli --help
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from data.contract import json_schemas
from data.errors import MatjipError, SettingsError
from data.labelling import labelling_config
from data.manifest import read_manifest, write_json, write_text_atomically
from pipelines.arguments import home_from_environment, tracking_uri
from pipelines.chosen_runs import deployments_for, run_for
from pipelines.cluster import GRAPHS, compile_graphs, submit_graph
from pipelines.demo import run_demo
from pipelines.deployments import gateway_options
from pipelines.embedding import run_embedding
from pipelines.language import run_language
from pipelines.live import Served, deployments_to_serve, live_folder
from pipelines.local import run_graph, source_digest
from pipelines.make_targets import STEPS
from pipelines.placement import local_placement
from pipelines.real_data import run_real_data
from pipelines.schedule import NAME, schedule_graph
from pipelines.steps import one_step
from pipelines.tune import run_tuning
from pipelines.tune_engine import tune_engines
from serving.registry.language_deploy import served_language_model, served_name
from serving.vllm_report import report_path

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
PLACEMENT: Final = Path("pipelines/placement.yaml")


def _settings(given: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value is JSON where it is JSON, else text."""
    values: dict[str, Any] = {}
    for pair in given:
        key, separator, text = pair.partition("=")
        if not separator:
            raise SettingsError(f"--set {pair!r} is not KEY=VALUE")
        try:
            values[key] = json.loads(text)
        except json.JSONDecodeError:
            values[key] = text
    return values


Set = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, again and again.")]
Labels = Annotated[str | None, typer.Option(help="Labels; the gold corpus by default.")]
Summaries = Annotated[str | None, typer.Option(help="Written summaries, JSON.")]
DeployedBy = Annotated[
    str | None, typer.Option("--run", help="A run's id; the last deployment of each kind without.")
]
RecipeName = Annotated[str, typer.Option(help="A recipe's name, or a path to a .yaml file.")]


@app.command()
def demo(
    labels: Labels = None,
    summaries: Summaries = None,
    recipe: RecipeName = "tiny",
    language_recipe: RecipeName = "language-tiny",
    language: Annotated[bool, typer.Option(help="Also train a language model.")] = True,  # noqa: FBT002  # typer's way
) -> None:
    """Train, deploy, compare and promote on this machine."""
    run_demo(
        home_from_environment(),
        labels=labels,
        summaries=summaries,
        recipe=recipe,
        language_recipe=language_recipe if language else None,
    )


@app.command()
def language(
    labels: Labels = None,
    summaries: Summaries = None,
    recipe: RecipeName = "language-tiny",
    given: Set = None,
) -> None:
    """Train a language model, quantise it, measure it and judge it, on this machine."""
    run_language(
        home_from_environment(),
        labels=labels,
        summaries=summaries,
        recipe=recipe,
        given=_settings(given or []),
    )


@app.command()
def embedding(
    labels: Labels = None, recipe: RecipeName = "embedding-tiny", given: Set = None
) -> None:
    """Make an embedding model, export, quantise, measure and deploy it, on this machine."""
    run_embedding(
        home_from_environment(), labels=labels, recipe=recipe, given=_settings(given or [])
    )


@app.command()
def tune(
    kind: Annotated[str, typer.Argument(help="encoder, or language.")],
    space: Annotated[str | None, typer.Option(help="A search space's name or path.")] = None,
    trials: Annotated[int, typer.Option(help="At most so many.")] = 10,
    wall_minutes: Annotated[float, typer.Option(help="At most so long.")] = 30.0,
    recipe: Annotated[str | None, typer.Option(help="What the search starts from.")] = None,
    labels: Labels = None,
    given: Set = None,
) -> None:
    """Search for a better recipe, scored on the validation part, on this machine."""
    tuned = run_tuning(
        home_from_environment(),
        kind,
        space=space,
        trials=trials,
        wall_minutes=wall_minutes,
        recipe=recipe,
        labels=labels,
        given=_settings(given or []),
    )
    print((tuned / "trials.md").read_text(encoding="utf-8"))
    print(tuned / "best_recipe.yaml")


@app.command("tune-engine")
def tune_engine(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Of `python -m serving.engines.tune`.")
    ] = None,
    run: DeployedBy = None,
) -> None:
    """Choose the engines of the models that were deployed last, by measuring."""
    home = home_from_environment()
    tune_engines(deployments_for(home, run), arguments or [])


@app.command("real-data")
def real_data() -> None:
    """Train and report on real Korean reviews."""
    run_real_data(home_from_environment(), folder=os.environ.get("MATJIP_REAL_DATA"))


@app.command()
def step(
    name: str,
    run: Annotated[str | None, typer.Option(help="A run's id; the last one by default.")] = None,
    given: Set = None,
) -> None:
    """Run one component by itself, on a run's artifacts."""
    if name not in STEPS:
        raise SettingsError(f"no step {name!r}; the steps are {sorted(STEPS)}")
    home = home_from_environment()
    graphs, task = STEPS[name]
    record = run_for(home, graphs, run)
    graph = GRAPHS[record.graph](local_placement(source_digest()))
    alone = one_step(graph, task, record, _settings(given or []))
    run_graph(alone, {}, record, home, caching=False)
    for key, value in record.steps[-1].outputs.items():
        print(f"{key}: {value['uri'] if isinstance(value, dict) else value}")


@app.command()
def compile(  # noqa: A001  # the command is called so
    placement: Annotated[Path, typer.Option(help="Images, resources and volumes.")] = PLACEMENT,
    out: Annotated[Path, typer.Option(help="Folder for the compiled graphs.")] = Path(
        "var/compiled"
    ),
) -> None:
    """Compile the graphs for a cluster."""
    for path in compile_graphs(placement, out):
        print(path)


@app.command()
def submit(
    host: Annotated[str, typer.Option(help="The Kubeflow Pipelines API, http(s)://…")],
    placement: Annotated[Path, typer.Option()] = PLACEMENT,
    recipe: RecipeName = "kr-electra",
    language_recipe: RecipeName = "qwen-7b-qlora",
    given: Set = None,
) -> None:
    """Send train_and_deploy to a Kubeflow server."""
    print(
        submit_graph(
            host,
            placement,
            recipe=recipe,
            language_recipe=language_recipe,
            given=_settings(given or []),
        )
    )


@app.command()
def schedule(
    host: Annotated[str, typer.Option(help="The Kubeflow Pipelines API, http(s)://…")],
    every: Annotated[str, typer.Option(help="15m, 6h, 1d, or six cron fields, seconds first.")],
    placement: Annotated[Path, typer.Option()] = PLACEMENT,
    name: Annotated[str, typer.Option(help="Of the recurring run that it replaces.")] = NAME,
    given: Set = None,
) -> None:
    """Let a Kubeflow server compare what it serves again and again, and act on the verdict."""
    print(schedule_graph(host, placement, every=every, name=name, given=_settings(given or [])))


@app.command()
def serve(
    run: DeployedBy = None,
    port: int = 8000,
) -> None:
    """Serve the last deployment of each kind, or an experiment, on 127.0.0.1, until Ctrl-C."""
    home = home_from_environment()
    served = Served(deployments_for(home, run)) if run else deployments_to_serve(home)
    command = [sys.executable, "-m", "serving.gateway.app", *gateway_options(served.deployments)]
    for note in served.notes:
        print(note, file=sys.stderr)
    print(f"http://127.0.0.1:{port}/docs", flush=True)
    environment = os.environ | {
        "MATJIP_STORE_URL": home.store_url,
        "MATJIP_LIVE": str(live_folder(home)),
        "MLFLOW_TRACKING_URI": tracking_uri(home),
    }
    os.execve(sys.executable, [*command, "--port", str(port)], environment)  # noqa: S606


@app.command("serve-llm")
def serve_llm(
    alias: Annotated[str, typer.Option(help="champion, or challenger.")] = "champion",
    model_name: Annotated[str, typer.Option(help="The registered model.")] = "matjip-language",
    profile: Annotated[str | None, typer.Option(help="Of serving/vllm.yaml.")] = None,
    python: Annotated[str, typer.Option(help="The interpreter of vLLM's own environment.")] = (
        "python"
    ),
    port: int = 8001,
) -> None:
    """Start vLLM on 127.0.0.1 with an alias's language model, until Ctrl-C."""
    home = home_from_environment()
    folder = served_language_model(tracking_uri(home), model_name, alias, home.folder("models"))
    command = [sys.executable, "-m", "serving.vllm_launch", "serve", str(folder)]
    command += ["--python", python, "--port", str(port)]
    command += ["--served-name", served_name(model_name, alias)]
    command += ["--profile", profile] if profile else []
    report = report_path(home.folder("vllm"), read_manifest(folder).digest)
    os.execve(sys.executable, [*command, "--report", str(report)], dict(os.environ))  # noqa: S606


@app.command("mlflow")
def open_mlflow(port: int = 5000) -> None:
    """The tracking server's UI on 127.0.0.1, until Ctrl-C."""
    home = home_from_environment()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--backend-store-uri", home.tracking_uri]
    command += ["--default-artifact-root", str(home.folder("mlflow") / "artifacts")]
    os.execve(sys.executable, command, dict(os.environ))  # noqa: S606


@app.command()
def contract(
    out: Annotated[Path, typer.Option(help="Folder for the schemas and the config.")] = Path(
        "var/contract"
    ),
) -> None:
    """Write the contract's JSON Schemas and the Label Studio labelling config."""
    out.mkdir(parents=True, exist_ok=True)
    for name, schema in json_schemas().items():
        write_json(out / f"{name}.schema.json", schema)
        print(out / f"{name}.schema.json")
    write_text_atomically(out / "label_studio.xml", labelling_config())
    print(out / "label_studio.xml")


def main() -> None:
    """Run a command; what matjip refuses is told in one message, without a traceback."""
    try:
        app()
    except MatjipError as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
