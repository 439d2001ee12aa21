"""`make language`: labels and summaries to a language model in INT8 that serves."""

import shutil
import time
from typing import Any

from rich.console import Console

from data.manifest import write_json
from pipelines.arguments import language_arguments
from pipelines.language_summary import language_summary, show_language
from pipelines.local import Home, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.train_language import train_language


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
    summary = {
        "run_id": run.run_id,
        "wall_s": round(time.monotonic() - start, 1),
        **language_summary(run, home.folder("vllm")),
        "steps": [
            {"name": step.name, "status": step.status, "seconds": step.seconds}
            for step in run.steps
        ],
    }
    folder = home.folder("language")
    write_json(folder / "summary.json", summary)
    report = run.artifact("evaluate-llm", "evaluation") / "report.html"
    shutil.copyfile(report, folder / "report.html")
    show_language(console, summary)
    console.print(
        f"{summary['wall_s']} s. Report: {folder / 'report.html'}", soft_wrap=True, highlight=False
    )
    return summary
