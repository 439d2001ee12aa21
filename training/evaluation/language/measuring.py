"""Every figure of every contestant: value, interval, spread over repeats, lead over the nulls.

All contestants are resampled with the same counts, so a difference of two is paired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from data.errors import MetricError
from data.examples import Example
from serving.engines.chat import ChatAnswer
from training.evaluation.intervals import CHUNK, Resamples, Values, interval
from training.evaluation.language.figures import OTHER_NEEDS, Figure, all_figures
from training.evaluation.language.form import Parts
from training.evaluation.language.tally import ONCE, Tally, constrained_parts

Cell = dict[str, Any]
_EMPTY: Final[Cell] = {"value": None, "low": None, "high": None, "n": 0, "spread": None}
NO_ITEMS: Final = "nothing to find, or nothing was said, on this part"


@dataclass(frozen=True)
class Measured:
    """One figure of one contestant.

    Attributes:
        value: over all items.
        resampled: (resamples,) the same over each resample; NaN where it is undefined.
        counted: (items,) which items have a part in it.
    """

    value: float
    resampled: Values
    counted: NDArray[np.bool_]


def measured(figure: Figure, tally: Tally, drawn: Resamples) -> Measured:
    """One figure, as it is and resampled.

    Raises:
        MetricError: the contestant was not asked for it, or it is undefined on these items.
    """
    if figure.needs not in tally.answered:
        raise MetricError(OTHER_NEEDS.get(figure.needs, f"does not answer {figure.needs}"))
    tables = _tables(figure, tally)
    value = _value(figure, tables)
    if not np.isfinite(value):
        raise MetricError(NO_ITEMS)
    resampled = [
        figure.reduce([np.asarray(weights @ table) for table in tables])
        for start in range(0, len(drawn.counts), CHUNK)
        for weights in [drawn.counts[start : start + CHUNK].astype(np.float64)]
    ]
    counted = np.any(np.stack([table.any(axis=1) for table in tables]), axis=0)
    return Measured(value, np.concatenate(resampled), counted)


def measure(
    figures: Mapping[str, Figure],
    tallies: Mapping[str, Tally],
    nulls: Sequence[str],
    drawn: Resamples,
) -> tuple[dict[str, dict[str, Cell]], dict[str, dict[str, Cell]]]:
    """Every figure of every contestant, and each model's lead over the best null baseline.

    Args:
        figures: what to measure.
        tallies: by contestant.
        nulls: which of them are null baselines.
        drawn: the resamples that all share.

    Returns:
        ``{"value", "low", "high", "n", "spread"}`` by contestant and figure; one that cannot be
        computed has ``value`` null and ``reason``. ``spread`` is the least and the greatest value
        of a repeat, null with one repeat. And ``{"null", "difference", "low", "high"}`` by model
        and figure, positive is better; figures that the model or every null lacks are left out.
    """
    cells: dict[str, dict[str, Cell]] = {name: {} for name in tallies}
    leads: dict[str, dict[str, Cell]] = {name: {} for name in tallies if name not in nulls}
    for key, figure in figures.items():
        found: dict[str, Measured] = {}
        for name, tally in tallies.items():
            try:
                found[name] = measured(figure, tally, drawn)
            except MetricError as error:
                cells[name][key] = _EMPTY | {"reason": str(error)}
            else:
                cells[name][key] = _cell(figure, tally, found[name], drawn)
        sign = direction(figure)
        there = [name for name in nulls if name in found]
        if there:
            best = max(there, key=lambda name: sign * found[name].value)
            for name in leads.keys() & found.keys():
                leads[name][key] = {"null": best} | paired(found[name], found[best], sign, drawn)
    return cells, leads


def direction(figure: Figure) -> float:
    """1 where more is better, else -1."""
    return 1.0 if figure.better == "higher" else -1.0


def paired(
    first: Measured, second: Measured, sign: float, drawn: Resamples, *, level: float = 0.95
) -> Cell:
    """Difference of two contestants with its interval; null bounds where it has none."""
    units = drawn.units_in(first.counted | second.counted)
    values = sign * (first.resampled - second.resampled)
    cell: Cell = {"difference": sign * (first.value - second.value), "low": None, "high": None}
    try:
        cell["low"], cell["high"] = interval(values, units=units, level=level)
    except MetricError as error:
        cell["reason"] = str(error)
    return cell


def values_of(examples: Sequence[Example], answers: Sequence[ChatAnswer]) -> dict[str, float]:
    """Figures of one set of answers without intervals: for tuning, and for parity down the chain.

    Args:
        examples: what was asked.
        answers: decoded under each example's schema, in the same order.

    Returns:
        The figures that these examples define.

    Raises:
        MetricError: there are no examples, or not one answer each.
    """
    if not examples or len(examples) != len(answers):
        raise MetricError(
            f"{len(answers)} answers to {len(examples)} examples; answer each of at least one"
        )
    rows: list[Parts] = [
        constrained_parts(example, answer)
        for example, answer in zip(examples, answers, strict=True)
    ]
    tally = Tally([rows], frozenset({example.task for example in examples} | {"examples"}))
    values = {
        name: _value(figure, _tables(figure, tally))
        for name, figure in all_figures().items()
        if figure.needs in tally.answered
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _tables(figure: Figure, tally: Tally, repeat: int | None = None) -> list[Values]:
    return [tally.table(measure, figure.parts, repeat) for measure in figure.measures]


def _value(figure: Figure, tables: Sequence[Values]) -> float:
    return float(figure.reduce([table.sum(axis=0, keepdims=True) for table in tables])[0])


def _cell(figure: Figure, tally: Tally, found: Measured, drawn: Resamples) -> Cell:
    cell = _EMPTY | {"value": found.value, "n": int(found.counted.sum())}
    cell["spread"] = _spread(figure, tally)
    try:
        cell["low"], cell["high"] = interval(found.resampled, units=drawn.units_in(found.counted))
    except MetricError as error:
        cell["reason"] = str(error)
    return cell


def _spread(figure: Figure, tally: Tally) -> list[float] | None:
    if len(tally.rows) < 2 or figure.measures[0].startswith(ONCE):  # noqa: PLR2004  # one repeat
        return None
    values = [_value(figure, _tables(figure, tally, repeat)) for repeat in range(len(tally.rows))]
    defined = [value for value in values if np.isfinite(value)]
    return [min(defined), max(defined)] if defined else None
