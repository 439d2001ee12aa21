"""The report of an evaluation: one HTML file with its plots inside, and a short Markdown one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from training.evaluation.plots import confusion_svg, forest_svg, reliability_svg, roc_svg
from training.evaluation.report_template import PAGE

HEADLINES: Final[dict[str, str]] = {
    "three_class_macro_f1": "Sentiment macro-F1",
    "two_class_accuracy": "Two-class accuracy",
    "intensity_mae": "Intensity error (MAE, steps)",
    "intensity_kappa": "Intensity kappa (quadratic)",
    "emotions_auroc": "Emotions AUROC",
    "emotions_macro_f1": "Emotions macro-F1",
    "aspect_macro_f1": "Aspects spoken of, macro-F1",
    "aspect_state_macro_f1": "Aspect polarity, macro-F1",
    "sentiment_ece": "Calibration error (ECE)",
    "sentiment_brier": "Brier score",
}
"""The figures that stand first; all others follow in a second table."""
MODELS_IN_PLOT: Final = 4


def shown(cell: Mapping[str, Any], name: str = "value") -> str:
    """A figure with its interval, or a dash."""
    if cell[name] is None:
        return "–"
    if cell["low"] is None:
        return f"{cell[name]:.3f}"
    return f"{cell[name]:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def _title(name: str) -> str:
    return HEADLINES.get(name, name.replace("_", " "))


def _plots(result: Mapping[str, Any], models: Sequence[str]) -> dict[str, Markup]:
    first = models[0]
    plots: dict[str, str] = {}
    for task in ("sentiment", "intensity"):
        confusion = result["confusion"][first][task]
        if "matrix" in confusion:
            plots[f"{task} confusion"] = confusion_svg(
                confusion["labels"], confusion["matrix"], f"{first}: {task}"
            )
    if "reason" not in result["roc"][first]["sentiment"]:
        plots["ROC, each sentiment against the rest"] = roc_svg(result["roc"][first]["sentiment"])
    bins = {name: result["calibration"][name] for name in models if result["calibration"][name]}
    if bins:
        plots["Reliability of the likeliest sentiment"] = reliability_svg(
            dict(list(bins.items())[:MODELS_IN_PLOT])
        )
    rows = [
        (f"{name} (n={part['n']})", cell["accuracy"], cell["low"], cell["high"])
        for name, part in result["slices"].items()
        if (cell := part["models"][first])["judged"]
    ]
    if rows:
        plots["Slices"] = forest_svg(rows, f"share correct, {first}")
    # The plots are ours; they hold no text of a review.
    return {title: Markup(svg) for title, svg in plots.items()}  # noqa: S704  # drawn by matplotlib


def _reasons(result: Mapping[str, Any], models: Sequence[str]) -> list[tuple[str, str, str]]:
    return [
        (_title(name), model, cell["reason"])
        for model in models
        for name, cell in result["metrics"][model].items()
        if cell.get("reason")
    ]


def render_html(
    result: Mapping[str, Any], models: Sequence[str], wrong: Sequence[Mapping[str, Any]]
) -> str:
    """A self-contained page; every text that is not ours is escaped.

    Args:
        result: what metrics.json holds.
        models: in the order of the columns; the first is looked at closely.
        wrong: its worst mistakes, with their texts.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    names = list(result["metrics"][models[0]])
    return environment.from_string(PAGE).render(
        result=result,
        models=models,
        headlines=list(HEADLINES),
        others=[name for name in names if name not in HEADLINES],
        title=_title,
        shown=shown,
        plots=_plots(result, models),
        wrong=wrong,
        reasons=_reasons(result, models),
    )


def _row(cells: Sequence[object]) -> str:
    escaped = [
        str(cell).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells
    ]
    return "| " + " | ".join(escaped) + " |"


def render_markdown(result: Mapping[str, Any], models: Sequence[str]) -> str:
    """Tables of the main figures and slices; no review text."""
    boot = result["bootstrap"]
    lines = [
        "# Evaluation",
        "",
        (
            f"{result['n']} reviews; 95% intervals from {boot['resamples']} resamples of "
            f"{boot['units']} {boot['unit']}s, the same for all models."
        ),
        "",
        _row(["figure", "n", *models]),
        _row(["---"] * (len(models) + 2)),
    ]
    for name, headline in HEADLINES.items():
        cells = [result["metrics"][model][name] for model in models]
        lines.append(_row([headline, cells[0]["n"], *map(shown, cells)]))
    lines += ["", "## Slices (share correct)", "", _row(["slice", "n", *models])]
    lines.append(_row(["---"] * (len(models) + 2)))
    for name, part in result["slices"].items():
        cells = [part["models"][model] for model in models]
        lines.append(_row([name, part["n"], *(shown(cell, "accuracy") for cell in cells)]))
    speed = result["speed"]
    if "models" in speed:
        lines += ["", f"## Speed against {speed['reference']} (process CPU time)", ""]
        lines += [_row(["model", "times faster"]), _row(["---", "---"])]
        lines += [_row([name, shown(cell, "ratio")]) for name, cell in speed["models"].items()]
    lines += ["", "A dash is a figure that cannot be computed; metrics.json says why."]
    return "\n".join(lines) + "\n"
