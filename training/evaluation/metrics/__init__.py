"""Local `evaluate` modules, one file each, and the one way to ask them for figures.

They are true `evaluate.Metric` modules: ``evaluate.load(path)`` takes them offline. Evaluation
imports them as package modules, which needs no module cache on disk.
"""

import importlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Final

from data.errors import MetricError

MODULES: Final[dict[str, str]] = {
    "macro_f1": "MacroF1",
    "intensity_error": "IntensityError",
    "emotions": "Emotions",
    "aspects": "Aspects",
    "calibration": "Calibration",
}
"""File name of each module in this folder, and the class in it."""


Outcome = float | str
"""A figure's value, or the reason why it cannot be computed."""


def each_figure(
    figures: Sequence[str], compute: Callable[[str], float], *, explain: bool
) -> dict[str, Outcome]:
    """Every figure's value; with ``explain`` the reason stands in the place of a missing one.

    Raises:
        MetricError: a figure cannot be computed, and ``explain`` is off.
    """
    answer: dict[str, Outcome] = {}
    for figure in figures:
        try:
            answer[figure] = compute(figure)
        except MetricError as error:
            if not explain:
                raise
            answer[figure] = str(error)
    return answer


def _load(module: str) -> Any:
    try:
        loaded = importlib.import_module(f"training.evaluation.metrics.{module}")
        return getattr(loaded, MODULES[module])
    except (ImportError, KeyError, AttributeError) as error:
        raise MetricError(
            f"metric module {module!r} cannot be loaded: {error}; the modules are "
            f"{sorted(MODULES)!r}, reinstall matjip with the lock file if one is missing"
        ) from error


def compute_figures(
    module: str,
    figures: Sequence[str],
    *,
    predictions: Any,
    references: Any,
    explain: bool = False,
    **options: Any,
) -> dict[str, Outcome]:
    """Ask one module for several figures at once: handing it the rows is what takes long.

    Args:
        module: a key of ``MODULES``.
        figures: figures that the module knows.
        predictions: what the module's ``features`` say, as lists, one item per row.
        references: the same for the gold side.
        explain: give a reason instead of raising for a figure that cannot be computed.
        options: further arguments of the module.

    Raises:
        MetricError: the module is missing, the rows do not match, or a figure cannot be computed.
    """
    metric_class = _load(module)
    if len(predictions) != len(references):
        raise MetricError(
            f"{module!r} has {len(predictions)!r} predictions for {len(references)!r} rows; "
            "predict every row once"
        )
    if len(references) == 0:
        reason = "no labelled rows: label the task on this part"
        if not explain:
            raise MetricError(f"{module!r} has {reason}")
        return dict.fromkeys(figures, reason)
    with tempfile.TemporaryDirectory() as folder:
        metric = metric_class(keep_in_memory=True, cache_dir=folder)
        answer: dict[str, Outcome] = metric.compute(
            predictions=predictions,
            references=references,
            figures=tuple(figures),
            explain=explain,
            **options,
        )
    return answer


def compute_figure(
    module: str, figure: str, *, predictions: Any, references: Any, **options: Any
) -> float:
    """Ask one module for one figure; see ``compute_figures``.

    Raises:
        MetricError: the module is missing, or the figure cannot be computed on these rows.
    """
    answer = compute_figures(
        module, [figure], predictions=predictions, references=references, **options
    )
    return float(answer[figure])
