"""Evaluate language models on one part of the targets, null baselines beside them.

In: an artifact of kind ``targets``, the split it is of, engines as serving has them. Out: a folder
of kind ``language_evaluation`` with metrics.json, predictions.jsonl, report.html and report.md.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from data.errors import SettingsError
from data.manifest import (
    Manifest,
    start_artifact,
    write_json,
    write_manifest,
    write_text_atomically,
)
from data.prompts import TASKS, Task, prompt_version
from serving.engines.chat import ChatEngine
from serving.language_folder import read_language_model
from serving.summaries import ANSWER_TOKENS, summarise
from training.evaluation.intervals import Resamples, draw_resamples
from training.evaluation.language.asking import ask_model
from training.evaluation.language.baselines import NULLS, null_baselines
from training.evaluation.language.figures import all_figures
from training.evaluation.language.gold import Gold, Part, read_gold
from training.evaluation.language.judge import NOT_ASKED, ask_judge
from training.evaluation.language.judge_endpoint import JudgeEndpoint
from training.evaluation.language.measuring import measure
from training.evaluation.language.perplexity import perplexity_parts
from training.evaluation.language.predictions import write_predictions
from training.evaluation.language.report import render_html, render_markdown
from training.evaluation.language.tally import Said, Tally, tally_of
from training.evaluation.predictions import PREDICTIONS_NAME

LANGUAGE_EVALUATION_KIND: Final = "language_evaluation"
METRICS_NAME: Final = "metrics.json"
FREE_EXAMPLES: Final = 32


def evaluate_language_models(
    targets: Path,
    engines: Mapping[str, ChatEngine],
    out: Path,
    *,
    split: Path,
    part: Part = "test",
    repeats: int = 2,
    free: int = FREE_EXAMPLES,
    restaurants: bool = True,
    folders: Mapping[str, Path] | None = None,
    judge: JudgeEndpoint | None = None,
    answer_tokens: Mapping[Task, int] = ANSWER_TOKENS,
    seed: int = 0,
    resamples: int = 2000,
) -> Manifest:
    """Evaluate engines on examples and whole restaurants.

    Args:
        targets: folder of kind "targets".
        engines: models by name; the first is the one that the report looks at closely.
        out: folder to write, of kind "language_evaluation".
        split: the split that the targets were built from: the restaurants' reviews.
        part: which part of it.
        repeats: how often examples are asked at temperature 0, at least 1.
        free: how many examples are asked once more without a schema, for the raw rates; a model
            that does not know when to end takes its longest time there.
        restaurants: ask whole restaurants, from their reviews to their summaries.
        folders: of models whose perplexity is wanted, by the names in ``engines``.
        judge: is asked about every bullet of the restaurants; without one it is "not asked".
        answer_tokens: the most an answer may take, by task.
        seed: of the order of repeats, the judge's controls and the resamples.
        resamples: bootstrap resamples.

    Raises:
        ArtifactError: a folder is missing, altered or of another kind.
        DataUnfitError: the part has no example.
        SettingsError: no engine, one named like a baseline, a folder without an engine, no repeat,
            or a judge without restaurants.
        EngineError: an engine answers nothing.
        MetricError: a metric's package is missing, or the judge answered nothing.
    """
    _check(engines, folders or {}, repeats=repeats, judge=judge, restaurants=restaurants)
    manifests = {name: read_language_model(folder) for name, folder in (folders or {}).items()}
    gold, source = read_gold(targets, split, part)
    nulls = null_baselines(gold)
    way = partial(summarise, answer_tokens=answer_tokens) if restaurants else None
    models = asyncio.run(
        _ask(
            engines,
            gold,
            repeats=repeats,
            free=free,
            answer_tokens=answer_tokens,
            seed=seed,
            summarise=way,
        )
    )
    said = models | nulls
    tallies = {name: tally_of(gold, mine) for name, mine in said.items()}
    for name, folder in (folders or {}).items():
        tallies[name] = _with_perplexity(tallies[name], folder, gold, nulls["other"])
    judged, tallies = _judged(judge, gold, models, tallies, seed)
    drawn = draw_resamples([i.restaurant for i in gold.items], resamples=resamples, seed=seed)
    facts: dict[str, Any] = {"part": part, "repeats": repeats, "seed": seed}
    facts |= {"targets": source.digest, "split": source.facts["split_digest"]}
    facts |= {"prompts": {task: prompt_version(task) for task in TASKS}}
    result = _result(gold, tallies, drawn) | {"judge": judged, "facts": facts}
    result["models"] = {
        name: _facts(name, engines, manifests) | {"answered": sorted(tally.answered)}
        for name, tally in tallies.items()
    }
    start_artifact(out)
    write_predictions(out / PREDICTIONS_NAME, gold, said, tallies)
    write_json(out / METRICS_NAME, result)
    write_text_atomically(out / "report.html", render_html(result, gold, models))
    write_text_atomically(out / "report.md", render_markdown(result))
    facts |= {"models": list(engines), "n": len(gold.examples)}
    return write_manifest(out, LANGUAGE_EVALUATION_KIND, facts)


def _check(
    engines: Mapping[str, ChatEngine],
    folders: Mapping[str, Path],
    *,
    repeats: int,
    judge: JudgeEndpoint | None,
    restaurants: bool,
) -> None:
    unknown = sorted(set(folders) - set(engines))
    if not engines or set(engines) & set(NULLS) or unknown:
        raise SettingsError(
            f"engines {sorted(engines)!r}, folders without an engine {unknown!r}: name at least "
            f"one engine, none of them {NULLS!r}, and give folders the engines' names"
        )
    if repeats < 1:
        raise SettingsError(f"repeats is {repeats!r}; ask at least once")
    if judge is not None and not restaurants:
        raise SettingsError(
            f"judge {judge.model!r} reads summaries of restaurants, and restaurants is False; ask "
            "them too, or ask no judge"
        )


async def _ask(engines: Mapping[str, ChatEngine], gold: Gold, **how: Any) -> dict[str, Said]:
    return {
        name: await ask_model(engine, gold, name=name, **how) for name, engine in engines.items()
    }


def _with_perplexity(tally: Tally, folder: Path, gold: Gold, other: Said) -> Tally:
    others = [answer.text for answer in other.constrained[0] if answer is not None]
    losses = perplexity_parts(folder, gold, others)
    first = [
        parts | losses[number] if number < len(losses) else parts
        for number, parts in enumerate(tally.rows[0])
    ]
    return Tally([first, *tally.rows[1:]], tally.answered | {"perplexity"})


def _judged(
    judge: JudgeEndpoint | None,
    gold: Gold,
    models: Mapping[str, Said],
    tallies: dict[str, Tally],
    seed: int,
) -> tuple[dict[str, Any], dict[str, Tally]]:
    answers = {name: said.restaurants[0] for name, said in models.items() if said.restaurants}
    if judge is None:
        return NOT_ASKED, tallies
    found = asyncio.run(ask_judge(judge, gold, answers, seed=seed))
    added = dict(tallies)
    start = len(gold.examples)
    for name, mine in found.parts.items():
        first = list(tallies[name].rows[0])
        first[start:] = [a | b for a, b in zip(first[start:], mine, strict=True)]
        rows = [first, *tallies[name].rows[1:]]
        added[name] = replace(tallies[name], rows=rows, answered=tallies[name].answered | {"judge"})
    return found.report, added


def _result(gold: Gold, tallies: Mapping[str, Tally], drawn: Resamples) -> dict[str, Any]:
    figures = all_figures()
    metrics, leads = measure(figures, tallies, NULLS, drawn)
    return {
        "n": {"examples": len(gold.examples), "restaurants": len(gold.restaurants)}
        | {task: sum(each.task == task for each in gold.examples) for task in TASKS},
        "bootstrap": {
            "resamples": len(drawn.counts),
            "seed": drawn.seed,
            "unit": "restaurant" if drawn.unit == "restaurant" else "item",
            "units": int(drawn.units.max()) + 1,
            "level": 0.95,
            "method": "paired, expanded percentile (arXiv 1411.5279)",
        },
        "figures": {
            name: {"title": figure.title, "needs": figure.needs, "better": figure.better}
            for name, figure in figures.items()
        },
        "metrics": metrics,
        "over_nulls": leads,
    }


def _facts(
    name: str, engines: Mapping[str, ChatEngine], manifests: Mapping[str, Manifest]
) -> dict[str, Any]:
    if name not in engines:
        return {"kind": "null"}
    facts: dict[str, Any] = {"kind": "model", "engine": engines[name].name}
    if name in manifests:
        found = manifests[name].facts
        facts |= {"digest": manifests[name].digest}
        facts |= {key: found.get(key) for key in ("role", "format")}
    return facts
