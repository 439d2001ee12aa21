"""`make language`: labels and summaries to a language model in INT8, measured and judged."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from data.manifest import read_manifest, write_json
from pipelines.arguments import language_arguments
from pipelines.local import Home, RunRecord, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.train_language import train_language

SHOWN: Final = {
    "obeyed": "answers that obey their form",
    "raw_obeyed": "the same, decoded freely",
    "task_score": "score over all tasks",
    "sentiment_macro_f1": "sentiment, macro-F1",
    "category_macro_f1": "category of each clause, macro-F1",
    "summary_category_macro_f1": "category in whole summaries, macro-F1",
    "summary_evidence_verbatim": "evidence that is verbatim",
}
MODELS: Final = ("candidate", "parent")


def run_language(
    home: Home,
    *,
    labels: str | None = None,
    summaries: str | None = None,
    recipe: str = "language-tiny",
    given: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run the graph; writes var/language/summary.json and report.html, and shows the figures.

    Raises:
        SettingsError: an input is not there.
        RunFailedError: a step failed.
    """
    start, console = time.monotonic(), Console()
    arguments = language_arguments(
        home, labels=labels, summaries=summaries, recipe=recipe, **(given or {})
    )
    graph = train_language(local_placement(source_digest()))
    run = run_graph(graph, arguments, new_run(home, "train-language", arguments), home)
    summary = language_summary(run) | {"wall_s": round(time.monotonic() - start, 1)}
    folder = home.folder("language")
    write_json(folder / "summary.json", summary)
    report = run.artifact("evaluate-llm", "evaluation") / "report.html"
    shutil.copyfile(report, folder / "report.html")
    _show(console, summary)
    console.print(
        f"{summary['wall_s']} s. Report: {folder / 'report.html'}", soft_wrap=True, highlight=False
    )
    return summary


def language_summary(run: RunRecord) -> dict[str, Any]:
    """What the run made, as one JSON for machines."""
    gate = _json(run.artifact("gate-llm", "gate") / "gate.json")
    measured = _json(run.artifact("evaluate-llm", "evaluation") / "metrics.json")
    merged = run.artifact("merge-llm", "merged")
    quantized = run.artifact("quantize-llm", "quantized")
    targets = read_manifest(run.artifact("build-targets", "targets")).facts
    trained = read_manifest(run.artifact("train-llm", "adapter")).facts
    return {
        "run_id": run.run_id,
        "targets": {key: targets[key] for key in ("examples", "restaurants", "quarantined")},
        "training": {key: trained[key] for key in ("tokens_per_s", "quantized_base", "lengths")},
        "models": [
            {
                "role": role,
                "format": read_manifest(folder).facts["format"],
                "bytes": _bytes(folder),
                "metrics": measured["metrics"][role],
            }
            for role, folder in zip(MODELS, (quantized, merged), strict=True)
        ],
        "nulls": {
            name: figures for name, figures in measured["metrics"].items() if name not in MODELS
        },
        "over_nulls": measured["over_nulls"],
        "gate": {key: gate[key] for key in ("verdict", "reason", "recovery")},
        "steps": [
            {"name": step.name, "status": step.status, "seconds": step.seconds}
            for step in run.steps
        ],
    }


def _show(console: Console, summary: dict[str, Any]) -> None:
    table = Table(
        "figure",
        *(f"{model['format']} ({model['bytes'] / 1e6:.1f} MB)" for model in summary["models"]),
        *summary["nulls"],
        title="On restaurants that training never saw",
    )
    for figure, title in SHOWN.items():
        cells = [_cell(model["metrics"].get(figure)) for model in summary["models"]]
        cells += [_cell(null.get(figure)) for null in summary["nulls"].values()]
        table.add_row(title, *cells)
    console.print(table)
    console.print(f"Gate: {summary['gate']['verdict']}: {summary['gate']['reason']}")


def _cell(figure: dict[str, Any] | None) -> str:
    if not figure or figure.get("value") is None:
        return "–"
    if figure.get("low") is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _bytes(folder: Path) -> int:
    """Of the weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
