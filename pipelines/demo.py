"""`make demo`: train and deploy, replay traffic, compare and promote, then show what happened."""

import json
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from data.manifest import read_manifest, write_json, write_text_atomically
from pipelines.arguments import compare_arguments, encoder_arguments, train_arguments
from pipelines.compare_and_promote import compare_and_promote
from pipelines.demo_report import render_report
from pipelines.language_summary import language_summary, show_language
from pipelines.language_traffic import ask_summary
from pipelines.local import Home, RunRecord, StepRecord, new_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.summary import build_summary
from pipelines.traffic import exposures_so_far, replay_held_out
from pipelines.train_and_deploy import train_and_deploy
from pipelines.train_encoder import train_encoder

REQUESTS: Final = 5000
RULE: Final = "{margin: 0.05, alpha: 0.05, min_exposures_per_arm: 500, tuned_for_units: 5000}"
FIGURES: Final = {
    "three_class_macro_f1": "sentiment, macro-F1",
    "intensity_mae": "intensity, mean error",
    "emotions_macro_f1": "emotions, macro-F1",
    "aspect_macro_f1": "aspects, macro-F1",
}
TRAFFIC: Final = (
    "a replay of {n} held-out gold reviews through the gateway, drawn with replacement, their "
    "labels fed back; the interval is about these reviews, not about diners"
)


def _replay(home: Home, trained: RunRecord, requests: int) -> tuple[StepRecord, int]:
    """Send the traffic, unless the store has it already."""
    deployment = trained.artifact("deploy-challenger", "deployment")
    split = trained.artifact("split-dataset", "split")
    start = time.monotonic()
    cached = exposures_so_far(deployment, home.store_url) >= requests
    if not cached:
        log = home.folder("runs") / f"{trained.run_id}.gateway.log"
        replay_held_out(deployment, split, home.store_url, log, requests=requests, seed=20261101)
    seconds = round(time.monotonic() - start, 3)
    held_out = sum(1 for _ in (split / "test.jsonl").open("rb"))
    step = StepRecord(name="replay-traffic", status="succeeded", seconds=seconds, cached=cached)
    return step, held_out


def deployed_alone(trained: RunRecord) -> str:
    """Why there is no challenger, in the registration's words."""
    folder = trained.artifact("register-model", "registration")
    return str(json.loads((folder / "registration.json").read_bytes())["note"])


def _shown(figure: dict[str, Any]) -> str:
    if figure.get("value") is None:
        return "–"
    return f"{figure['value']:.3f}\n[{figure['low']:.2f}, {figure['high']:.2f}]"


def show_summary(console: Console, summary: dict[str, Any]) -> None:
    """The short table at the end."""
    models, baselines = summary["models"], summary["baselines"]
    table = Table("", title="On restaurants that training never saw", title_justify="left")
    for model in models:
        table.add_column(f"{model['format']}\nv{model['version']} {model['alias'] or ''}")
    for name in ("tfidf", "lexicon"):
        table.add_column(name)
    for key, title in FIGURES.items():
        cells = [model["metrics"][key] for model in models]
        cells += [baselines[name][key] for name in ("tfidf", "lexicon")]
        table.add_row(title, *map(_shown, cells))
    table.add_row("size", *(f"{model['bytes'] / 1e6:.1f} MB" for model in models))
    speeds = [model["speed_ratio"] for model in models]
    table.add_row("speed", *("–" if ratio is None else f"{ratio:.2f}×" for ratio in speeds))
    console.print(table)
    quantised = summary["models"][-1]["parity"]
    verdict, gate = summary["verdict"], summary["gate"]
    console.print(
        f"Quantisation: cosine {quantised['cos_mean']:.5f} (p1 {quantised['cos_p1']:.5f}), "
        f"{quantised['label_flips']} labels flipped among the texts compared."
    )
    console.print(f"Gate: [bold]{gate['verdict']}[/]: {gate['reason']}. {gate['tfidf']}")
    console.print(f"Verdict: [bold]{verdict['decision']}[/]: {verdict['reason']}")


def _train(
    home: Home, labels: str | None, summaries: str | None, recipe: str, language: str | None
) -> RunRecord:
    placement = local_placement(source_digest())
    if language is None:
        arguments = encoder_arguments(home, labels=labels, recipe=recipe)
        graph, name = train_encoder(placement), "train-encoder"
    else:
        arguments = train_arguments(
            home, labels=labels, summaries=summaries, recipe=recipe, language_recipe=language
        )
        graph, name = train_and_deploy(placement), "train-and-deploy"
    return run_graph(graph, arguments, new_run(home, name, arguments), home)


def _language(
    home: Home, trained: RunRecord, console: Console
) -> tuple[dict[str, Any] | None, list[StepRecord]]:
    """What became of the language model, and one summary by the gateway that serves it."""
    if trained.step("deploy-llm") is None:
        return None, []
    summary = language_summary(trained, home.folder("vllm"))
    if summary["deployment"] is None:
        return summary | {"sample": None}, []
    start = time.monotonic()
    sample = ask_summary(
        Path(summary["deployment"]),
        trained.artifact("split-dataset", "split"),
        home.store_url,
        home.folder("runs") / f"{trained.run_id}.language-gateway.log",
    )
    seconds = round(time.monotonic() - start, 3)
    step = StepRecord(name="ask-summary", status="succeeded", seconds=seconds, cached=False)
    _tell(console, step)
    return summary | {"sample": sample}, [step]


def _tell(console: Console, step: StepRecord) -> None:
    console.print(
        f"  {step.name:<22} {'cached' if step.cached else 'done':<7} {step.seconds:7.1f} s",
        highlight=False,
    )


def run_demo(
    home: Home,
    *,
    labels: str | None = None,
    summaries: str | None = None,
    recipe: str = "tiny",
    language_recipe: str | None = "language-tiny",
    requests: int = REQUESTS,
) -> dict[str, Any]:
    """The main job on the embedded defaults; returns what summary.json holds.

    Args:
        home: where everything goes.
        labels: the gold corpus by default.
        summaries: written ones of its restaurants; those of the gold corpus by default.
        recipe: of the classifier.
        language_recipe: of the language model; None leaves it out.
        requests: how much traffic is replayed.

    Raises:
        RunFailedError: a step failed.
    """
    console, start = Console(), time.monotonic()
    placement = local_placement(source_digest())
    trained = _train(home, labels, summaries, recipe, language_recipe)
    steps, compared, why_not = list(trained.steps), None, ""
    deployment = trained.artifact("deploy-challenger", "deployment")
    if read_manifest(deployment).facts["status"] == "skipped":
        why_not = deployed_alone(trained)
    else:
        with console.status("replaying held-out reviews through the gateway"):
            step, held_out = _replay(home, trained, requests)
        _tell(console, step)
        again = compare_arguments(home, trained, rule=RULE, traffic=TRAFFIC.format(n=held_out))
        compared = run_graph(
            compare_and_promote(placement),
            again,
            new_run(home, "compare-and-promote", again),
            home,
        )
        steps += [step, *compared.steps]
    language, asked = _language(home, trained, console)
    summary = build_summary(
        trained,
        compared,
        [*steps, *asked],
        wall_s=time.monotonic() - start,
        why_not_compared=why_not,
    ) | {"language": language}
    folder = home.folder("demo")
    write_json(folder / "summary.json", summary)
    write_text_atomically(folder / "report.html", render_report(summary, trained, compared))
    show_summary(console, summary)
    if language is not None:
        show_language(console, language)
    console.print(f"{summary['wall_s']} s. Report: {folder / 'report.html'}", soft_wrap=True)
    return summary
