"""predictions.jsonl: one row per review and model, from which every figure can be computed again.

    {"id", "model", "gold": {"sentiment", "intensity", "emotions", "aspects", "phenomena"},
     "restaurant", "characters", "predicted": {…}, "probabilities": {…}}

Probabilities are lists in the contract's order, to eight decimals. No text is kept.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from data.contract import ASPECT_STATES, ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS
from data.errors import ArtifactError
from data.manifest import write_text_atomically
from serving.predictions import ProbabilityArrays
from training.evaluation.gold import Answers, Gold

PREDICTIONS_NAME = "predictions.jsonl"


def _gold_row(gold: Gold, row: int) -> dict[str, Any]:
    has_emotions, has_aspects = gold.emotions[row, 0] >= 0, gold.aspects[row, 0] >= 0
    return {
        "sentiment": SENTIMENTS[gold.sentiment[row]] if gold.sentiment[row] >= 0 else None,
        "intensity": INTENSITIES[gold.intensity[row]] if gold.intensity[row] >= 0 else None,
        "emotions": [e for i, e in enumerate(EMOTIONS) if gold.emotions[row, i]]
        if has_emotions
        else None,
        "aspects": _aspects(gold.aspects[row]) if has_aspects else None,
        "phenomena": list(gold.phenomena[row]),
    }


def _aspects(states: Any) -> dict[str, str]:
    return {a: ASPECT_STATES[int(s)] for a, s in zip(ASPECTS, states, strict=True) if s > 0}


def prediction_rows(gold: Gold, answers: Mapping[str, Answers]) -> Iterator[dict[str, Any]]:
    """Every row of predictions.jsonl, model by model."""
    for model, answer in answers.items():
        chances = answer.probabilities
        sentiment, intensity = answer.sentiment, answer.intensity
        emotions, aspects = answer.emotions, answer.aspects
        for row, review_id in enumerate(gold.ids):
            yield {
                "id": review_id,
                "model": model,
                "gold": _gold_row(gold, row),
                "restaurant": gold.restaurants[row],
                "characters": int(gold.characters[row]),
                "predicted": {
                    "sentiment": SENTIMENTS[sentiment[row]],
                    "intensity": INTENSITIES[intensity[row]],
                    "emotions": [e for i, e in enumerate(EMOTIONS) if emotions[row, i]],
                    "aspects": _aspects(aspects[row]),
                },
                "probabilities": {
                    "sentiment": chances.sentiment[row].tolist(),
                    "intensity": chances.intensity[row].tolist(),
                    "emotions": chances.emotions[row].tolist(),
                    "aspects": chances.aspects[row].tolist(),
                },
            }


def write_predictions(path: Path, gold: Gold, answers: Mapping[str, Answers]) -> None:
    """Write predictions.jsonl."""
    rows = (orjson.dumps(row).decode() for row in prediction_rows(gold, answers))
    write_text_atomically(path, "".join(f"{row}\n" for row in rows))


def _gold_from(rows: list[dict[str, Any]]) -> Gold:
    def index(names: tuple[Any, ...], value: Any) -> int:
        return -1 if value is None else names.index(value)

    labels = [row["gold"] for row in rows]
    return Gold(
        ids=tuple(row["id"] for row in rows),
        sentiment=np.asarray([index(SENTIMENTS, g["sentiment"]) for g in labels], dtype=np.int64),
        intensity=np.asarray([index(INTENSITIES, g["intensity"]) for g in labels], dtype=np.int64),
        emotions=np.asarray(
            [
                [-1 if g["emotions"] is None else int(e in g["emotions"]) for e in EMOTIONS]
                for g in labels
            ],
            dtype=np.int64,
        ),
        aspects=np.asarray(
            [
                [
                    -1
                    if g["aspects"] is None
                    else ASPECT_STATES.index(g["aspects"].get(a, "absent"))
                    for a in ASPECTS
                ]
                for g in labels
            ],
            dtype=np.int64,
        ),
        restaurants=tuple(row["restaurant"] for row in rows),
        phenomena=tuple(tuple(g["phenomena"]) for g in labels),
        characters=np.asarray([row["characters"] for row in rows], dtype=np.int64),
    )


def _answers_from(rows: list[dict[str, Any]], facts: Mapping[str, Any]) -> Answers:
    def stacked(task: str) -> Any:
        return np.asarray([row["probabilities"][task] for row in rows], dtype=np.float64)

    return Answers(
        probabilities=ProbabilityArrays(
            sentiment=stacked("sentiment"),
            intensity=stacked("intensity"),
            emotions=stacked("emotions"),
            aspects=stacked("aspects"),
        ),
        thresholds=np.asarray([facts["emotion_thresholds"][e] for e in EMOTIONS]),
        tasks=frozenset(facts["tasks"]),
        mention_thresholds=np.asarray([facts["mention_thresholds"][a] for a in ASPECTS]),
    )


def read_predictions(
    path: Path, models: Mapping[str, Mapping[str, Any]]
) -> tuple[Gold, dict[str, Answers]]:
    """Read gold and every model's answers back.

    Args:
        path: predictions.jsonl.
        models: metrics.json's ``models``: thresholds and tasks of each.

    Raises:
        ArtifactError: a model lacks rows, or the models answered different reviews.
    """
    by_model: dict[str, list[dict[str, Any]]] = {}
    with path.open("rb") as file:
        for line in file:
            row = orjson.loads(line)
            by_model.setdefault(row["model"], []).append(row)
    missing = sorted(set(models) - set(by_model))
    if missing or not by_model:
        raise ArtifactError(f"{str(path)!r} has no rows of {missing!r}; evaluate again")
    golds = {name: _gold_from(rows) for name, rows in by_model.items()}
    first = next(iter(golds.values()))
    for name, gold in golds.items():
        if gold.ids != first.ids:
            raise ArtifactError(
                f"{str(path)!r}: {name!r} answered other reviews than the first model; evaluate "
                "all of them on the same part"
            )
    return first, {name: _answers_from(by_model[name], facts) for name, facts in models.items()}
