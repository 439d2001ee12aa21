"""Evaluation: models and baselines on the same reviews, through the engine that will serve.

In: a split folder and model folders. Out: a folder of kind "evaluation" with predictions.jsonl,
metrics.json, report.html and report.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from data.contract import ASPECTS, EMOTIONS, SENTIMENTS, TASKS, LabelledReview
from data.errors import DataUnfitError, LeakageError, MetricError, SettingsError
from data.manifest import (
    MANIFEST_NAME,
    Manifest,
    read_labelled_reviews,
    read_manifest,
    write_json,
    write_manifest,
    write_text_atomically,
)
from serving.analyzer import Analyzer, load_analyzer
from serving.engines.choice import PLAIN
from training.evaluation.baselines import Baseline, Predictor, fit_baselines
from training.evaluation.curves import calibration_bins, confusions, roc_points
from training.evaluation.figures import CALIBRATION_BINS, all_figures
from training.evaluation.gold import Answers, Gold, gold_arrays, in_contract_order, rounded
from training.evaluation.intervals import Resamples, draw_resamples
from training.evaluation.measuring import measure
from training.evaluation.predictions import PREDICTIONS_NAME, write_predictions
from training.evaluation.report import render_html, render_markdown
from training.evaluation.slices import LEAST_ROWS, measure_slice, slices_of
from training.evaluation.speed import compare_speed

EVALUATION_KIND: Final = "evaluation"
METRICS_NAME: Final = "metrics.json"
BASELINES: Final = ("majority", "lexicon", "tfidf")
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Contestant:
    """A model or a baseline as evaluation sees it.

    Attributes:
        predict: texts to probabilities, columns in the contract's order.
        facts: kind, and what identifies it: digest, format, architecture, engine.
        tasks: what it answers.
    """

    predict: Predictor
    facts: dict[str, Any] = field(default_factory=lambda: {"kind": "model"})
    thresholds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(EMOTIONS, 0.5))
    tasks: frozenset[str] = frozenset(TASKS)
    mention_thresholds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(ASPECTS, 0.5)
    )


def model_contestant(analyzer: Analyzer) -> Contestant:
    """A served model; its columns are named by its own ``id2…`` maps, never by position."""
    spec = analyzer.spec
    return Contestant(
        predict=lambda texts: in_contract_order(
            analyzer.probabilities(texts), spec.id2sentiment, spec.id2intensity
        ),
        facts={
            "kind": "model",
            "digest": analyzer.manifest.digest,
            "format": spec.format,
            "architecture": spec.architecture,
            "engine": analyzer.engine.name,
        },
        thresholds={str(name): value for name, value in spec.emotion_thresholds.items()},
        mention_thresholds={str(name): v for name, v in spec.mention_thresholds.items()},
    )


def baseline_contestant(baseline: Baseline) -> Contestant:
    """A baseline beside the models."""
    return Contestant(
        predict=baseline.predict,
        facts={"kind": "baseline"} | baseline.facts,
        thresholds=dict(zip(EMOTIONS, baseline.thresholds.tolist(), strict=True)),
        tasks=baseline.tasks,
    )


def _answers(contestant: Contestant, texts: Sequence[str]) -> Answers:
    return Answers(
        probabilities=rounded(contestant.predict(texts)),
        thresholds=np.asarray([contestant.thresholds[name] for name in EMOTIONS]),
        tasks=contestant.tasks,
        mention_thresholds=np.asarray([contestant.mention_thresholds[name] for name in ASPECTS]),
    )


def _metrics(gold: Gold, answers: Mapping[str, Answers], drawn: Resamples) -> dict[str, Any]:
    figures = all_figures()
    return {model: measure(figures, gold, answer, drawn) for model, answer in answers.items()}


def _slices(gold: Gold, answers: Mapping[str, Answers], resamples: Resamples) -> dict[str, Any]:
    return {
        part.name: {
            "task": part.task,
            "n": int(part.mask.sum()),
            "least_n": LEAST_ROWS,
            "models": {
                model: measure_slice(part, gold, answer, resamples)
                for model, answer in answers.items()
            },
        }
        for part in slices_of(gold)
    }


def examples(
    reviews: Sequence[LabelledReview], gold: Gold, answer: Answers, *, most: int = 12
) -> list[dict[str, Any]]:
    """The reviews whose sentiment a model got wrong with the most confidence."""
    wrong = np.flatnonzero((gold.sentiment >= 0) & (answer.sentiment != gold.sentiment))
    chance = answer.probabilities.sentiment.max(axis=1)
    return [
        {
            "id": gold.ids[row],
            "text": reviews[row].review.text[:300],
            "gold": SENTIMENTS[gold.sentiment[row]],
            "predicted": SENTIMENTS[answer.sentiment[row]],
            "probability": float(chance[row]),
        }
        for row in wrong[np.argsort(-chance[wrong], kind="stable")][:most]
    ]


def evaluate_contestants(
    reviews: Sequence[LabelledReview],
    contestants: Mapping[str, Contestant],
    out: Path,
    *,
    facts: Mapping[str, Any],
    speed: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Manifest:
    """Measure anything that answers texts, and write the evaluation's folder.

    Args:
        reviews: the labelled reviews, at least one.
        contestants: by name; the first is the one that the report looks at closely.
        out: folder to write; what an interrupted run left there is written over.
        facts: where the reviews come from.
        speed: what ``compare_speed`` returned, if it was measured.
        seed: of the resamples.
        resamples: bootstrap resamples.

    Raises:
        DataUnfitError: there are no reviews.
    """
    if not reviews:
        raise DataUnfitError("there are no reviews to evaluate on; split a larger snapshot")
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    gold = gold_arrays(reviews)
    texts = [row.review.text for row in reviews]
    answers = {name: _answers(contestant, texts) for name, contestant in contestants.items()}
    drawn = draw_resamples(gold.restaurants, resamples=resamples, seed=seed)
    result: dict[str, Any] = {
        "n": len(gold),
        "labelled": {task: int(gold.labelled(task).sum()) for task in TASKS},
        "facts": dict(facts),
        "bootstrap": {
            "resamples": resamples,
            "seed": seed,
            "unit": drawn.unit,
            "units": int(drawn.units.max()) + 1,
            "level": 0.95,
            "method": "paired, expanded percentile (arXiv 1411.5279)",
        },
        "calibration_bins": CALIBRATION_BINS,
        "figures": {
            name: {"task": figure.task, "better": figure.better}
            for name, figure in all_figures().items()
        },
        "models": {
            name: contestant.facts
            | {
                "tasks": sorted(contestant.tasks),
                "emotion_thresholds": contestant.thresholds,
                "mention_thresholds": contestant.mention_thresholds,
            }
            for name, contestant in contestants.items()
        },
        "metrics": _metrics(gold, answers, drawn),
        "slices": _slices(gold, answers, drawn),
        "confusion": {name: confusions(gold, answer) for name, answer in answers.items()},
        "roc": {name: roc_points(gold, answer) for name, answer in answers.items()},
        "calibration": {name: calibration_bins(gold, answer) for name, answer in answers.items()},
        "speed": dict(speed) if speed else {"reason": "not measured"},
    }
    write_predictions(out / PREDICTIONS_NAME, gold, answers)
    write_json(out / METRICS_NAME, result)
    shown = next(iter(answers))
    wrong = examples(reviews, gold, answers[shown])
    write_text_atomically(out / "report.html", render_html(result, list(answers), wrong))
    write_text_atomically(out / "report.md", render_markdown(result, list(answers)))
    return write_manifest(
        out, EVALUATION_KIND, {**facts, "models": list(answers), "n": len(gold), "seed": seed}
    )


def reference_model(formats: Mapping[str, str], wished: str | None) -> str:
    """The model whose speed is 1: the one wished, else the fp32 export, else the first.

    Raises:
        SettingsError: the wished model is not there.
    """
    if wished is not None:
        if wished not in formats:
            raise SettingsError(
                f"reference {wished!r} is not among the models {sorted(formats)!r}; name one"
            )
        return wished
    exports = [name for name, kind in formats.items() if kind == "onnx-fp32"]
    return exports[0] if exports else next(iter(formats))


def _held_out_reviews(folder: Path, train: Sequence[LabelledReview]) -> list[LabelledReview]:
    read_manifest(folder, "validated")
    reviews = list(read_labelled_reviews(folder / "reviews.jsonl"))
    shared = {row.review.review_id for row in train} & {row.review.review_id for row in reviews}
    if shared:
        raise LeakageError(
            f"{len(shared)} reviews of {str(folder)!r} stand in the training part, for instance "
            f"{min(shared)!r}; evaluate on reviews that no model here was trained on"
        )
    return reviews


def evaluate_models(
    split: Path,
    models: Mapping[str, Path],
    out: Path,
    *,
    part: Part = "test",
    held_out: Path | None = None,
    seed: int = 0,
    resamples: int = 2000,
    threads: int = 1,
    reference: str | None = None,
) -> Manifest:
    """Evaluate model folders on one part of a split, baselines fitted on its training part beside.

    Args:
        split: folder of kind "split".
        models: model folders by name; the first is the one that the report looks at closely.
        out: folder to write, of kind "evaluation".
        part: which part of the split.
        held_out: a folder of kind "validated" whose reviews are evaluated instead of a part.
        seed: of baselines, resamples and the draw of texts for speed.
        resamples: bootstrap resamples.
        threads: compute threads of each engine.
        reference: the model whose speed is 1; by default the fp32 export.

    Raises:
        ArtifactError: a folder is missing, altered or of another kind.
        DataUnfitError: the part is empty.
        SettingsError: no model, a model named like a baseline, or an unknown reference.
        EngineError: a model cannot answer.
    """
    if not models or set(models) & set(BASELINES):
        raise SettingsError(
            f"models {sorted(models)!r}: name at least one, and none of them {BASELINES!r}"
        )
    manifest = read_manifest(split, "split")
    train = list(read_labelled_reviews(split / "train.jsonl"))
    if held_out is None:
        reviews = list(read_labelled_reviews(split / f"{part}.jsonl"))
    else:
        reviews = _held_out_reviews(held_out, train)
    if not reviews:
        raise DataUnfitError(
            f"part {part!r} of {str(split)!r} is empty; split a larger snapshot or name another"
        )
    analyzers = {
        name: load_analyzer(folder, engine=PLAIN, threads=threads)
        for name, folder in models.items()
    }
    contestants = {name: model_contestant(analyzer) for name, analyzer in analyzers.items()}
    base = reference_model({n: a.spec.format for n, a in analyzers.items()}, reference)
    try:
        speed = compare_speed(
            {name: contestant.predict for name, contestant in contestants.items()},
            [row.review.text for row in reviews],
            reference=base,
            threads=threads,
            seed=seed,
        )
    except MetricError as error:
        speed = {"reason": str(error)}
    contestants |= {
        name: baseline_contestant(b) for name, b in fit_baselines(train, seed=seed).items()
    }
    return evaluate_contestants(
        reviews,
        contestants,
        out,
        facts={
            "part": part if held_out is None else "held out",
            "split": manifest.digest,
            "threads": threads,
        },
        speed=speed,
        seed=seed,
        resamples=resamples,
    )
