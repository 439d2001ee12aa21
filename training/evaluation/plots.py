"""Plots as inline SVG, so that a report is one file that opens anywhere."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.contract import KOREAN

KOREAN_FONTS: Final = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic")
INK: Final = "#1f2933"
COLOURS: Final = ("#1d4ed8", "#c2410c", "#047857", "#7c3aed", "#b45309", "#64748b", "#be123c")
STYLE: Final[dict[str, Any]] = {
    "svg.hashsalt": "matjip",
    "font.size": 10,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.unicode_minus": False,
}


def korean_font() -> str | None:
    """A font on this machine that draws Korean, or None."""
    known = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in KOREAN_FONTS if name in known), None)


def _label(name: str) -> str:
    return f"{KOREAN[name]} ({name})" if korean_font() and name in KOREAN else name


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None}
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _style() -> Any:
    font = korean_font()
    return STYLE | ({"font.family": font} if font else {})


def confusion_svg(labels: Sequence[str], matrix: Sequence[Sequence[int]], title: str) -> str:
    """A confusion matrix, rows gold, shaded by the share of the row."""
    with rc_context(_style()):
        figure = Figure(figsize=(4.2, 3.6))
        axes = figure.subplots()
        counts = np.asarray(matrix, dtype=float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            axes.text(
                column,
                row,
                f"{int(counts[row, column])}\n{shares[row, column]:.0%}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.6 else INK,  # noqa: PLR2004  # legible
            )
        names = [_label(name) for name in labels]
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="gold", title=title)
        return _svg(figure)


def reliability_svg(bins: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Accuracy against stated probability, one line per model; the diagonal is honest."""
    with rc_context(_style()):
        figure = Figure(figsize=(4.6, 3.8))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#9aa5b1", linestyle="--", linewidth=1)
        for (model, rows), colour in zip(bins.items(), COLOURS * 3, strict=False):
            used = [row for row in rows if row["n"]]
            axes.plot(
                [row["confidence"] for row in used],
                [row["accuracy"] for row in used],
                color=colour,
                linewidth=1,
                label=model,
            )
            axes.scatter(
                [row["confidence"] for row in used],
                [row["accuracy"] for row in used],
                s=[12 + 120 * row["n"] / sum(r["n"] for r in used) for row in used],
                color=colour,
            )
        axes.set(
            xlim=(0.3, 1.0), ylim=(0, 1.02), xlabel="stated probability", ylabel="share correct"
        )
        axes.legend(frameon=False, fontsize=8)
        return _svg(figure)


def roc_svg(curves: Mapping[str, Any]) -> str:
    """ROC of each sentiment against the rest."""
    with rc_context(_style()):
        figure = Figure(figsize=(4.4, 3.8))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#9aa5b1", linestyle="--", linewidth=1)
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            if "fpr" in curve:
                text = f"{_label(name)}  {curve['auroc']:.3f}"
                axes.plot(curve["fpr"], curve["tpr"], color=colour, linewidth=1.6, label=text)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        return _svg(figure)


def forest_svg(rows: Sequence[tuple[str, float, float, float]], xlabel: str) -> str:
    """Points with intervals below one another: (name, value, low, high)."""
    with rc_context(_style()):
        figure = Figure(figsize=(5.2, 0.6 + 0.3 * max(len(rows), 1)))
        axes = figure.subplots()
        for height, (_, value, low, high) in enumerate(rows):
            axes.plot([low, high], [height, height], color=COLOURS[0], linewidth=1.6)
            axes.plot([value], [height], "o", color=COLOURS[0], markersize=5)
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.invert_yaxis()
        axes.grid(axis="x", color="#e4e7eb")
        axes.set_xlabel(xlabel)
        return _svg(figure)


def sequence_svg(points: Sequence[tuple[int, float, float, float]], margin: float) -> str:
    """A confidence sequence over units, with zero and the accepted loss: (n, value, low, high)."""
    n, value, low, high = (list(column) for column in zip(*points, strict=True))
    with rc_context(_style()):
        figure = Figure(figsize=(7.2, 3.4))
        axes = figure.subplots()
        axes.fill_between(n, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
        axes.plot(n, value, color=COLOURS[0], linewidth=1.6)
        axes.axhline(0.0, color=INK, linewidth=0.8)
        if margin:
            axes.axhline(-margin, color=COLOURS[1], linewidth=1.0, linestyle="--")
        reach = max(abs(value[-1]), abs(low[-1]), abs(high[-1]), margin) * 3
        axes.set_ylim(-reach, reach)
        axes.set(xlabel="units", ylabel="challenger - champion")
        return _svg(figure)


def curve_svg(curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Training loss over steps, one panel a stage."""
    shown = {name: curve for name, curve in curves.items() if curve}
    with rc_context(_style()):
        figure = Figure(figsize=(3.8 * max(len(shown), 1), 2.6), layout="constrained")
        panels = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
        for axes, (name, curve) in zip(panels, shown.items(), strict=False):
            axes.plot([step for step, _ in curve], [loss for _, loss in curve], color=COLOURS[0])
            axes.set(title=name, xlabel="step", ylabel="loss")
        return _svg(figure)


def history_svg(trials: Sequence[tuple[int, float, bool]], own: float | None, ylabel: str) -> str:
    """Scores of tuning's trials, and the best so far: (number, score, whether it was pruned)."""
    best = np.maximum.accumulate([-np.inf if pruned else score for _, score, pruned in trials])
    with rc_context(_style()):
        figure = Figure(figsize=(6.4, 3.2))
        axes = figure.subplots()
        for name, wanted, colour in (("whole", False, COLOURS[0]), ("pruned", True, "#9aa5b1")):
            shown = [(number, score) for number, score, pruned in trials if pruned == wanted]
            if shown:
                numbers, scores = zip(*shown, strict=True)
                axes.scatter(numbers, scores, s=22, color=colour, label=name, zorder=2)
        every = [number for number, *_ in trials]
        axes.step(every, best, where="post", color=COLOURS[0], linewidth=1.4, label="best so far")
        if own is not None:
            axes.axhline(own, color=COLOURS[1], linewidth=1.0, linestyle="--", label="the recipe")
        axes.set(xlabel="trial", ylabel=ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        return _svg(figure)
