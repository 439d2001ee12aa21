"""How an evaluation is shown in the Kubeflow UI: its matrix, curve, figures and report."""

import json
import shutil
from pathlib import Path
from typing import Any

from kfp.dsl import HTML, ClassificationMetrics, Markdown, Metrics


def show_evaluation(
    folder: Path,
    confusion: ClassificationMetrics,
    roc: ClassificationMetrics,
    metrics: Metrics,
    report: HTML,
    summary: Markdown,
) -> None:
    """Fill KFP's artifacts from an evaluation folder; the candidate's figures are shown."""
    shown = "candidate"
    values: dict[str, Any] = json.loads((folder / "metrics.json").read_bytes())
    counts = values["confusion"][shown]["sentiment"]
    confusion.log_confusion_matrix(counts["labels"], counts["matrix"])
    curve = values["roc"][shown]["sentiment"]["positive"]
    roc.log_roc_curve(curve["fpr"], curve["tpr"], curve["thresholds"])
    for name, figure in values["metrics"][shown].items():
        if figure.get("value") is not None:
            metrics.log_metric(name, figure["value"])
    Path(metrics.path).write_text(json.dumps(metrics.metadata), encoding="utf-8")
    for artifact in (confusion, roc):
        Path(artifact.path).write_text(json.dumps(artifact.metadata), encoding="utf-8")
    shutil.copyfile(folder / "report.html", report.path)
    shutil.copyfile(folder / "report.md", summary.path)


def show_figures(folder: Path, metrics: Metrics, report: HTML, summary: Markdown) -> None:
    """Fill KFP's artifacts from an evaluation without curves; the candidate's figures are shown."""
    values: dict[str, Any] = json.loads((folder / "metrics.json").read_bytes())
    for name, figure in values["metrics"]["candidate"].items():
        if figure.get("value") is not None:
            metrics.log_metric(name, figure["value"])
    Path(metrics.path).write_text(json.dumps(metrics.metadata), encoding="utf-8")
    shutil.copyfile(folder / "report.html", report.path)
    shutil.copyfile(folder / "report.md", summary.path)
