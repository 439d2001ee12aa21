"""Every figure of one model: its value from the metric modules, its interval from the resamples."""

from collections.abc import Mapping
from typing import Any

from data.errors import MetricError
from training.evaluation.figures import Figure, counted_rows
from training.evaluation.gold import Answers, Gold
from training.evaluation.intervals import Resamples, interval, spread
from training.evaluation.metrics import Outcome, compute_figures


def values_of(figures: Mapping[str, Figure], gold: Gold, answers: Answers) -> dict[str, Outcome]:
    """Value of each figure, or the reason why it has none; modules are asked once each."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, figure in figures.items():
        source = figure.source
        key = (source.module, source.inputs, source.options, figure.task, figure.polar_only)
        groups.setdefault(key, []).append(name)
    values: dict[str, Outcome] = {}
    for names in groups.values():
        first = figures[names[0]]
        if first.task not in answers.tasks:
            reason = f"not answered: no {first.task} labels to learn from"
            values |= dict.fromkeys(names, reason)
            continue
        mask = counted_rows(first, gold)
        references, predictions = first.source.inputs(gold, answers)
        found = compute_figures(
            first.source.module,
            [figures[name].source.figure for name in names],
            references=references[mask].tolist(),
            predictions=predictions[mask].tolist(),
            explain=True,
            **first.source.options(answers),
        )
        values |= {name: found[figures[name].source.figure] for name in names}
    return values


def measure(
    figures: Mapping[str, Figure],
    gold: Gold,
    answers: Answers,
    resamples: Resamples,
    *,
    level: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """Value, interval and rows of each figure, or null with the reason.

    Returns:
        ``{"value", "low", "high", "n"}`` by name; a figure that cannot be computed has ``value``
        null and ``reason``; one whose interval cannot be has ``low`` and ``high`` null and
        ``reason``.
    """
    cells = {}
    for name, value in values_of(figures, gold, answers).items():
        mask = counted_rows(figures[name], gold)
        cell: dict[str, Any] = {"value": None, "low": None, "high": None, "n": int(mask.sum())}
        if isinstance(value, str):
            cells[name] = cell | {"reason": value}
            continue
        cell["value"] = value
        try:
            values = spread(resamples, figures[name].statistic(gold, answers))
            cell["low"], cell["high"] = interval(
                values, units=resamples.units_in(mask), level=level
            )
        except MetricError as error:
            cell["reason"] = str(error)
        cells[name] = cell
    return cells
