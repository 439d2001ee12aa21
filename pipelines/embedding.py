"""`make embedding`: labels to an embedding model in ONNX, fp16 and INT8 that serves."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from data.manifest import read_manifest, write_json
from pipelines.arguments import embedding_arguments
from pipelines.language_summary import shown_figure
from pipelines.local import Home, RunRecord, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.train_embedding import train_embedding

PARITY: Final = ("cos_mean", "cos_p1", "cos_min", "top10_overlap")


def run_embedding(
    home: Home,
    *,
    labels: str | None = None,
    recipe: str = "embedding-tiny",
    given: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the graph; writes var/embedding/summary.json and report.html, and shows the figures.

    Raises:
        SettingsError: an input is not there.
        RunFailedError: a step failed.
    """
    start, console = time.monotonic(), Console()
    arguments = embedding_arguments(home, labels=labels, recipe=recipe, **(given or {}))
    graph = train_embedding(local_placement(source_digest()))
    run = run_graph(graph, arguments, new_run(home, "train-embedding", arguments), home)
    summary = {"wall_s": round(time.monotonic() - start, 1), **embedding_summary(run)}
    folder = home.folder("embedding")
    write_json(folder / "summary.json", summary)
    report = run.artifact("evaluate-embedding", "evaluation") / "report.html"
    shutil.copyfile(report, folder / "report.html")
    show_embedding(console, summary)
    console.print(
        f"{summary['wall_s']} s. Report: {folder / 'report.html'}", soft_wrap=True, highlight=False
    )
    return summary


def embedding_summary(run: RunRecord) -> dict[str, Any]:
    """What the run made, as one JSON for machines.

    Raises:
        SettingsError: a step has not run.
        ArtifactError: an artifact was altered.
    """
    measured = _json(run.artifact("evaluate-embedding", "evaluation") / "metrics.json")
    registered = run.artifact("register-embedding", "registration") / "registration.json"
    facts = read_manifest(run.artifact("quantize-embedding", "quantized")).facts
    checked = read_manifest(run.artifact("check-tensorrt", "check")).facts
    deployment = run.artifact("deploy-embedding", "deployment")
    return {
        "run_id": run.run_id,
        "formats": facts["formats"],
        "left_out": facts["left_out"],
        "metrics": measured["metrics"],
        "engines": measured["engines"],
        "queries": measured["queries"],
        "verdict": measured["verdict"],
        "reason": measured["reason"],
        "tensorrt": checked["graphs"],
        "registration": _json(registered),
        "deployment": str(deployment) if (deployment / "models").is_dir() else None,
        "steps": [
            {"name": step.name, "status": step.status, "seconds": step.seconds}
            for step in run.steps
        ],
    }


def show_embedding(console: Console, summary: dict[str, Any]) -> None:
    """Two short tables at the end: how true the exports are, and what the model finds."""
    exports = Table(
        *("graph", "MB", "cos mean", "p1", "min", "top-10", "TensorRT's builder"),
        title="Exports against their source",
        title_justify="left",
    )
    for name, facts in summary["formats"].items():
        cells = [f"{facts['parity'][key]:.5f}" for key in PARITY]
        asked = summary["tensorrt"].get(name, {}).get("status", "–")
        exports.add_row(name, f"{facts['bytes'] / 1e6:.1f}", *cells, asked)
    console.print(exports)
    names = list(summary["metrics"])
    found = Table(
        "",
        *(summary["engines"].get(name, name) for name in names),
        title="What it finds, on reviews that training never saw",
        title_justify="left",
    )
    for figure in summary["metrics"][names[0]]:
        found.add_row(figure, *(shown_figure(summary["metrics"][name][figure]) for name in names))
    console.print(found)
    console.print(summary["queries"], markup=False)
    for name, why in summary["left_out"].items():
        console.print(f"{name} was left out: {why}", markup=False)
    said = summary["registration"]
    console.print(
        f"{summary['verdict']}: {summary['reason']}. Registered as {said['name']} "
        f"version {said['version']}.",
        markup=False,
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
