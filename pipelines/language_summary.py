"""What a run made of a language model: for machines as JSON, for people as a table."""

import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from data.manifest import read_manifest
from pipelines.local import RunRecord
from serving.vllm_report import kernel_of

SHOWN: Final = {
    "obeyed": "answers that obey their form",
    "raw_obeyed": "the same, decoded freely",
    "task_score": "score over all tasks",
    "sentiment_macro_f1": "sentiment, macro-F1",
    "category_macro_f1": "category of each clause, macro-F1",
    "summary_category_macro_f1": "category of clauses that summaries rest on, macro-F1",
    "summary_evidence_verbatim": "evidence in summaries that is verbatim",
    "summary_evidence_supported": "evidence in summaries that labels bear out",
}
MODELS: Final = ("candidate", "parent")
NOT_BY_VLLM: Final = (
    "this run answered in process; once vLLM has served the model (`make serve-llm "
    'ARGS="--alias {alias}"`), the next run\'s summary says what it computed it with'
)


def language_summary(run: RunRecord, reports: Path) -> dict[str, Any]:
    """What the run made, as one JSON for machines.

    Args:
        run: of a graph that has the language branch.
        reports: folder of what vLLM said of models that it served.

    Raises:
        SettingsError: a step has not run.
        ArtifactError: an artifact was altered.
    """
    gate = _json(run.artifact("gate-llm", "gate") / "gate.json")
    measured = _json(run.artifact("evaluate-llm", "evaluation") / "metrics.json")
    parity = _json(run.artifact("compare-llm", "parity") / "parity.json")
    registration = _json(run.artifact("register-llm", "registration") / "registration.json")
    deployment = run.artifact("deploy-llm", "deployment")
    targets = read_manifest(run.artifact("build-targets", "targets")).facts
    trained = read_manifest(run.artifact("train-llm", "adapter")).facts
    folders = {
        "candidate": run.artifact("quantize-llm", "quantized"),
        "parent": run.artifact("merge-llm", "merged"),
    }
    versions = {each["manifest_digest"]: each for each in registration["versions"]}
    return {
        "targets": {key: targets[key] for key in ("examples", "restaurants", "quarantined")},
        "training": {key: trained[key] for key in ("tokens_per_s", "quantized_base", "lengths")},
        "parity": {key: parity[key] for key in ("links", "engines", "left_out")},
        "models": [
            _model(role, folder, versions, measured["metrics"][role], reports)
            for role, folder in folders.items()
        ],
        "nulls": {
            name: figures
            for name, figures in measured["metrics"].items()
            if measured["models"][name]["kind"] == "null"
        },
        "over_nulls": measured["over_nulls"],
        "gate": {key: gate[key] for key in ("verdict", "reason", "recovery", "checks", "limits")},
        "registration": registration["note"],
        "deployment": str(deployment) if (deployment / "models").is_dir() else None,
    }


def _model(
    role: str, folder: Path, versions: dict[str, Any], metrics: dict[str, Any], reports: Path
) -> dict[str, Any]:
    manifest = read_manifest(folder)
    version = versions[manifest.digest]
    kernel = kernel_of(reports, manifest.digest)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return {
        "role": role,
        **{key: version[key] for key in ("name", "version", "alias", "parent", "format")},
        "bytes": weights,
        "metrics": metrics,
        "kernel": kernel,
        "kernel_reason": None if kernel else NOT_BY_VLLM.format(alias=version["alias"] or "…"),
    }


def show_language(console: Console, summary: dict[str, Any]) -> None:
    """The short table at the end: the models, and the best that can be had without reading."""
    table = Table(
        "",
        *(f"{model['format']} ({model['bytes'] / 1e6:.1f} MB)" for model in summary["models"]),
        "best null baseline",
        title="Language model, on restaurants that training never saw",
        title_justify="left",
    )
    for figure, title in SHOWN.items():
        cells = [shown_figure(model["metrics"].get(figure)) for model in summary["models"]]
        table.add_row(title, *cells, _best_null(summary["nulls"], figure))
    console.print(table)
    recovered = summary["gate"]["recovery"]
    told = "" if recovered is None else f" INT8 recovers {shown_figure(recovered)} of its parent."
    console.print(
        f"Gate: [bold]{summary['gate']['verdict']}[/]: {summary['gate']['reason']}.{told}"
    )
    console.print(summary["registration"])


def _best_null(nulls: dict[str, Any], figure: str) -> str:
    values = {name: (null.get(figure) or {}).get("value") for name, null in nulls.items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return "–"
    best = max(known, key=lambda name: known[name])  # of each figure shown, more is better
    return f"{shown_figure(nulls[best][figure])}\n{best}"


def shown_figure(figure: dict[str, Any] | None) -> str:
    """A figure with its interval, or a dash."""
    if not figure or figure.get("value") is None:
        return "–"
    if figure.get("low") is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f}\n[{figure['low']:.2f}, {figure['high']:.2f}]"


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
