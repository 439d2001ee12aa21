"""`make demo`: train and deploy, replay traffic, compare and promote, then show what happened."""

import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from data.manifest import write_json, write_text_atomically
from pipelines.arguments import compare_arguments, train_arguments
from pipelines.compare_and_promote import compare_and_promote
from pipelines.demo_report import render_report
from pipelines.local import Home, RunRecord, StepRecord, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.summary import build_summary
from pipelines.traffic import exposures_so_far, replay_held_out
from pipelines.train_and_deploy import train_and_deploy
from serving.deployment import read_deployment

REQUESTS: Final = 6000
RULE: Final = "{margin: 0.05, alpha: 0.05, min_exposures_per_arm: 500, tuned_for_units: 6000}"
TRAFFIC: Final = (
    "a replay of {n} held-out gold reviews through the gateway, drawn with replacement, their "
    "labels fed back; the interval is about these reviews, not about diners"
)


def _replay(home: Home, trained: RunRecord) -> tuple[StepRecord, int]:
    """Send the traffic, unless the store has it already."""
    deployment = trained.artifact("deploy-challenger", "deployment")
    split = trained.artifact("split-dataset", "split")
    start = time.monotonic()
    cached = exposures_so_far(deployment, home.store_url) >= REQUESTS
    if not cached:
        log = home.folder("runs") / f"{trained.run_id}.gateway.log"
        replay_held_out(deployment, split, home.store_url, log, requests=REQUESTS, seed=20261101)
    seconds = round(time.monotonic() - start, 3)
    held_out = sum(1 for _ in (split / "test.jsonl").open("rb"))
    step = StepRecord(name="replay-traffic", status="succeeded", seconds=seconds, cached=cached)
    return step, held_out


def _interval(figure: dict[str, Any]) -> str:
    if figure.get("value") is None:
        return "–"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def show_summary(console: Console, summary: dict[str, Any], report: Path) -> None:
    """The short table at the end."""
    table = Table(title="What was trained", title_justify="left")
    shown = ("three_class_macro_f1", "intensity_mae", "emotions_macro_f1", "aspect_macro_f1")
    heads = ("model", "alias", "size", "speed", "sentiment F1", "intensity MAE", "emotions F1")
    for head in (*heads, "aspects F1"):
        table.add_column(head, overflow="fold")
    for model in summary["models"]:
        ratio = model["speed_ratio"]
        table.add_row(
            f"{model['format']} v{model['version']}",
            model["alias"] or "–",
            f"{model['bytes'] / 1e6:.1f} MB",
            "–" if ratio is None else f"{ratio:.2f}×",
            *(_interval(model["metrics"][name]) for name in shown),
        )
    console.print(table)
    quantised = summary["models"][-1]["parity"]
    verdict, gate = summary["verdict"], summary["gate"]
    console.print(
        f"Quantisation: cosine {quantised['cos_mean']:.5f} (p1 {quantised['cos_p1']:.5f}), "
        f"{quantised['label_flips']} labels flipped among the texts compared."
    )
    console.print(f"Gate: [bold]{gate['verdict']}[/]: {gate['reason']}. {gate['tfidf']}")
    console.print(f"Verdict: [bold]{verdict['decision']}[/]: {verdict['reason']}")
    console.print(f"{summary['wall_s']} s. Report: {report}", soft_wrap=True)


def run_demo(home: Home, *, labels: str | None, recipe: str) -> dict[str, Any]:
    """The main job on the embedded defaults; returns what summary.json holds.

    Raises:
        RunFailedError: a step failed.
    """
    console, start = Console(), time.monotonic()
    placement = local_placement(source_digest())
    arguments = train_arguments(home, labels=labels, recipe=recipe)
    trained = run_graph(
        train_and_deploy(placement),
        arguments,
        new_run(home, "train-and-deploy", arguments),
        home,
    )
    steps, compared, why_not = list(trained.steps), None, ""
    deployment = trained.artifact("deploy-challenger", "deployment")
    if read_deployment(deployment / "deployment.json").arm("challenger") is None:
        why_not = "there is no challenger to compare: the gate did not let the candidate through"
    else:
        with console.status("replaying held-out reviews through the gateway"):
            step, held_out = _replay(home, trained)
        console.print(
            f"  {step.name:<22} {'cached' if step.cached else 'done':<7} {step.seconds:7.1f} s",
            highlight=False,
        )
        again = compare_arguments(home, trained, rule=RULE, traffic=TRAFFIC.format(n=held_out))
        compared = run_graph(
            compare_and_promote(placement),
            again,
            new_run(home, "compare-and-promote", again),
            home,
        )
        steps += [step, *compared.steps]
    summary = build_summary(
        trained, compared, steps, wall_s=time.monotonic() - start, why_not_compared=why_not
    )
    folder = home.folder("demo")
    write_json(folder / "summary.json", summary)
    write_text_atomically(folder / "report.html", render_report(summary, trained, compared))
    show_summary(console, summary, folder / "report.html")
    return summary
