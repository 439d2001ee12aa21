"""The table of figures: name, how the `evaluate` module gives its value, how it is resampled."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.contract import ASPECT_STATES, ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS
from training.evaluation import weighted
from training.evaluation.gold import Answers, Gold, Mask
from training.evaluation.intervals import Statistic

CALIBRATION_BINS: Final = 10
NEUTRAL: Final = SENTIMENTS.index("neutral")
POLAR: Final = (SENTIMENTS.index("negative"), SENTIMENTS.index("positive"))


Inputs = Callable[[Gold, Answers], tuple[NDArray[Any], NDArray[Any]]]
"""Gold and predictions as a metric module takes them, one item per review."""


def _no_options(_: Answers) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Source:
    """Where a figure's value comes from: a metric module's figure, its inputs and options."""

    module: str
    figure: str
    inputs: Inputs
    options: Callable[[Answers], dict[str, Any]] = _no_options


@dataclass(frozen=True)
class Figure:
    """One number that a report gives of a model.

    Attributes:
        task: the task whose gold labels it needs.
        better: direction.
        source: its value, through the `evaluate` module.
        statistic: the same as a function of weights over all rows.
        polar_only: only rows whose gold is negative or positive.
    """

    task: str
    better: Literal["higher", "lower"]
    source: Source
    statistic: Callable[[Gold, Answers], Statistic]
    polar_only: bool = False


def two_class(gold: Gold, answers: Answers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gold and the larger of P(negative), P(positive), on rows whose gold is not neutral."""
    reference = np.where(np.isin(gold.sentiment, POLAR), gold.sentiment, -1)
    columns = answers.probabilities.sentiment[:, POLAR]
    return reference, np.asarray(POLAR)[columns.argmax(axis=1)]


def _correct(reference: NDArray[np.int64], predicted: NDArray[np.int64]) -> Statistic:
    return weighted.weighted_mean((reference == predicted).astype(np.float64), reference >= 0)


def _sentiment_figures() -> dict[str, Figure]:
    def labels(g: Gold, a: Answers) -> tuple[NDArray[Any], NDArray[Any]]:
        return g.sentiment, a.sentiment

    def chances(g: Gold, a: Answers) -> tuple[NDArray[Any], NDArray[Any]]:
        return g.sentiment, a.probabilities.sentiment

    def squared(g: Gold, a: Answers) -> Statistic:
        truth = np.eye(len(SENTIMENTS))[np.maximum(g.sentiment, 0)]
        distance = ((a.probabilities.sentiment - truth) ** 2).sum(axis=1)
        return weighted.weighted_mean(distance, g.sentiment >= 0)

    def one_class(g: Gold, a: Answers, k: int) -> Statistic:
        return weighted.class_f1(g.sentiment, a.sentiment, len(SENTIMENTS), k)

    figures = {
        "three_class_macro_f1": Figure(
            "sentiment",
            "higher",
            Source("macro_f1", "macro_f1", labels),
            lambda g, a: weighted.macro_f1(g.sentiment, a.sentiment, len(SENTIMENTS)),
        ),
        "three_class_accuracy": Figure(
            "sentiment",
            "higher",
            Source("macro_f1", "accuracy", labels),
            lambda g, a: _correct(g.sentiment, a.sentiment),
        ),
        "two_class_accuracy": Figure(
            "sentiment",
            "higher",
            Source("macro_f1", "accuracy", two_class),
            lambda g, a: _correct(*two_class(g, a)),
            polar_only=True,
        ),
        "sentiment_ece": Figure(
            "sentiment",
            "lower",
            Source("calibration", "ece", chances, lambda _: {"bins": CALIBRATION_BINS}),
            lambda g, a: weighted.calibration_error(
                g.sentiment, a.probabilities.sentiment, CALIBRATION_BINS
            ),
        ),
        "sentiment_brier": Figure(
            "sentiment", "lower", Source("calibration", "brier", chances), squared
        ),
    }
    for number, name in enumerate(SENTIMENTS):
        figures[f"sentiment_f1_{name}"] = Figure(
            "sentiment",
            "higher",
            Source("macro_f1", f"f1:{number}", labels),
            partial(one_class, k=number),
        )
    return figures


def _intensity_figures() -> dict[str, Figure]:
    steps = np.asarray(INTENSITIES)

    def inputs(g: Gold, a: Answers) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.where(g.intensity >= 0, steps[g.intensity], -9), a.probabilities.intensity

    def absolute(g: Gold, a: Answers) -> Statistic:
        error = np.abs(a.probabilities.intensity @ steps - steps[g.intensity])
        return weighted.weighted_mean(error, g.intensity >= 0)

    def near(g: Gold, a: Answers) -> Statistic:
        hit = np.abs(a.intensity - g.intensity) <= 1
        return weighted.weighted_mean(hit.astype(np.float64), g.intensity >= 0)

    builders: dict[
        str, tuple[str, Literal["higher", "lower"], Callable[[Gold, Answers], Statistic]]
    ] = {
        "intensity_mae": ("mae", "lower", absolute),
        "intensity_kappa": (
            "quadratic_weighted_kappa",
            "higher",
            lambda g, a: weighted.quadratic_kappa(g.intensity, a.intensity),
        ),
        "intensity_exact": ("exact", "higher", lambda g, a: _correct(g.intensity, a.intensity)),
        "intensity_within_one": ("within_one", "higher", near),
    }
    return {
        name: Figure("intensity", better, Source("intensity_error", figure, inputs), builder)
        for name, (figure, better, builder) in builders.items()
    }


def _emotion_figures() -> dict[str, Figure]:
    def inputs(g: Gold, a: Answers) -> tuple[NDArray[Any], NDArray[Any]]:
        return g.emotions, a.probabilities.emotions

    def thresholds(a: Answers) -> dict[str, Any]:
        return {"thresholds": a.thresholds.tolist()}

    def area(g: Gold, a: Answers, k: int) -> Statistic:
        return weighted.auroc(g.emotions[:, k], a.probabilities.emotions[:, k])

    def f1(g: Gold, a: Answers, k: int) -> Statistic:
        return weighted.class_f1(g.emotions[:, k], a.emotions[:, k].astype(np.int64), 2, 1)

    def both_classes(g: Gold) -> list[int]:
        rows = g.emotions[g.labelled("emotions")]
        return [k for k in range(len(EMOTIONS)) if 0 < rows[:, k].sum() < len(rows)]

    figures = {
        "emotions_auroc": Figure(
            "emotions",
            "higher",
            Source("emotions", "auroc", inputs),
            lambda g, a: weighted.mean_of([area(g, a, k) for k in both_classes(g)]),
        ),
        "emotions_macro_f1": Figure(
            "emotions",
            "higher",
            Source("emotions", "macro_f1", inputs, thresholds),
            lambda g, a: weighted.mean_of([f1(g, a, k) for k in both_classes(g)]),
        ),
    }
    for number, name in enumerate(EMOTIONS):
        figures[f"emotion_auroc_{name}"] = Figure(
            "emotions",
            "higher",
            Source("emotions", f"auroc:{number}", inputs),
            partial(area, k=number),
        )
        figures[f"emotion_f1_{name}"] = Figure(
            "emotions",
            "higher",
            Source("emotions", f"f1:{number}", inputs, thresholds),
            partial(f1, k=number),
        )
    return figures


def _aspect_figures() -> dict[str, Figure]:
    def inputs(g: Gold, a: Answers) -> tuple[NDArray[Any], NDArray[Any]]:
        return g.aspects, a.aspects

    def presence(g: Gold, a: Answers, k: int) -> Statistic:
        gold = np.where(g.aspects[:, k] < 0, -1, g.aspects[:, k] > 0)
        return weighted.class_f1(gold, (a.aspects[:, k] > 0).astype(np.int64), 2, 1)

    def states(g: Gold, a: Answers, columns: slice) -> Statistic:
        return weighted.macro_f1(
            g.aspects[:, columns], a.aspects[:, columns], len(ASPECT_STATES), first=1
        )

    def both_classes(g: Gold) -> list[int]:
        rows = g.aspects[g.labelled("aspects")] > 0
        return [k for k in range(len(ASPECTS)) if 0 < rows[:, k].sum() < len(rows)]

    figures = {
        "aspect_macro_f1": Figure(
            "aspects",
            "higher",
            Source("aspects", "presence_macro_f1", inputs),
            lambda g, a: weighted.mean_of([presence(g, a, k) for k in both_classes(g)]),
        ),
        "aspect_state_macro_f1": Figure(
            "aspects",
            "higher",
            Source("aspects", "state_macro_f1", inputs),
            lambda g, a: states(g, a, slice(None)),
        ),
    }
    for number, name in enumerate(ASPECTS):
        figures[f"aspect_f1_{name}"] = Figure(
            "aspects",
            "higher",
            Source("aspects", f"presence_f1:{number}", inputs),
            partial(presence, k=number),
        )
        figures[f"aspect_state_macro_f1_{name}"] = Figure(
            "aspects",
            "higher",
            Source("aspects", f"state_macro_f1:{number}", inputs),
            partial(states, columns=slice(number, number + 1)),
        )
    return figures


def all_figures() -> dict[str, Figure]:
    """Every figure by its name in metrics.json."""
    return _sentiment_figures() | _intensity_figures() | _emotion_figures() | _aspect_figures()


def counted_rows(figure: Figure, gold: Gold) -> Mask:
    """(n,) the rows that a figure counts."""
    mask = gold.labelled(figure.task)
    return mask & np.isin(gold.sentiment, POLAR) if figure.polar_only else mask
